"""`sama …` in a process of its own, forked from one that has imported the stages that train: no seconds of imports."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from sama import cli


def sama(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What `sama WORDS` says in `folder`, and its exit code; what it says goes through files there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sama.stages.retrain"])
    said = [folder / "stdout.txt", folder / "stderr.txt"]
    process = context.Process(target=_run, args=(words, folder, *said))
    process.start()
    process.join()
    assert process.exitcode is not None
    return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in said))


def _run(words: tuple[str, ...], folder: Path, *said: Path) -> None:
    for number, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder)
    sys.exit(cli.run(words))
