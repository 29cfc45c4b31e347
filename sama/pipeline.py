"""`sama pipeline`: hold the folder, mend what a killed run left behind, become Snakemake."""

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from sama import guard

DRY_RUN = {"-n", "--dry-run", "--dryrun"}


def become_snakemake(arguments: Sequence[str], wait_seconds: float) -> NoReturn:
    """Replace this process by `python -m snakemake ARGUMENTS`.

    Snakemake answers SIGTERM and SIGINT by waiting for the running jobs, so the death of our parent sends it SIGKILL:
    its jobs then miss their owner and end. What that leaves, a stale lock of Snakemake and incomplete outputs, is
    mended by the next call: no other pipeline lives while we hold the folder, so a lock found then is stale.
    """
    guard.die_with_parent(signal.SIGKILL)
    options = []
    if not DRY_RUN.intersection(arguments):
        guard.hold_folder(inherit=True)
        guard.wait_for_jobs(wait_seconds)
        shutil.rmtree(guard.STATE / "locks", ignore_errors=True)
        options = ["--rerun-incomplete"]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *options, *arguments])
