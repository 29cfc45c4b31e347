"""A failed job of a real Slurm is submitted again, or not, by the kind of its failure."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm
from tests.toy_pipeline import PYTHON, Toy, wait_until

RETRIES = ("--retry", "exception=1", "--retry", "out_of_memory=1", "--memory-factor", "5", "--retry", "node_failure=1")
STAGE = """
import os, time
from pathlib import Path


def run(*, out: Path, how: str) -> None:
    with open(f"runs_{how}", "a") as stream:
        print(os.environ["SLURMD_NODENAME"], file=stream)
    if how == "exception":
        raise RuntimeError("a mistake of ours")
    if how in ("greedy", "huge"):
        held = b"x" * (300 << 20)
        time.sleep(4)
    if how in ("cancelled", "lost"):
        while not Path("go").exists():
            time.sleep(0.05)
    out.write_text(how)
"""


@pytest.fixture
def folder(toy: Toy, slurm: Slurm) -> Iterator[Toy]:
    """The toy with a stage that fails in every way; nodes and queue are as they were in the end."""
    (toy.folder / "toy_stage.py").write_text(STAGE)
    yield toy
    for node in ("127.0.0.11", "127.0.0.12"):
        if "DOWN" in slurm.ask("scontrol", "show", "node", node):
            slurm.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")


def start(toy: Toy, slurm: Slurm, how: str, *more: str) -> subprocess.Popen[str]:
    launch = ("launch", "--launcher", "slurm", "--memory-mb", "200", *RETRIES, *more, "--")
    return toy.start(PYTHON, "program.py", *launch, "toy", "--out", how, "--how", how, **slurm.environment)


def runs(toy: Toy, how: str) -> list[str]:
    """On which nodes the stage began."""
    path = toy.folder / f"runs_{how}"
    return path.read_text().split() if path.exists() else []


def queued(toy: Toy, slurm: Slurm) -> list[str]:
    lines = [line.split("|") for line in slurm.ask("squeue", "--noheader", "--format=%A|%Z").splitlines()]
    return [job for job, where in lines if Path(where) == toy.folder]


@pytest.mark.long
def test_each_kind_of_failure_has_its_retries(folder: Toy, slurm: Slurm) -> None:
    launchers = {how: start(folder, slurm, how) for how in ("cancelled", "exception", "greedy")}
    wait_until(lambda: len(runs(folder, "cancelled")) == 1, "the job to run", seconds=60)
    others = [launchers["exception"], launchers["greedy"]]
    said = {launcher: launcher.communicate(timeout=120)[1] for launcher in others}
    slurm.ask("scancel", *queued(folder, slurm))
    errors = launchers["cancelled"].communicate(timeout=60)[1]
    assert (launchers["cancelled"].returncode, len(runs(folder, "cancelled"))) == (1, 1), errors
    assert "was cancelled by" in errors.splitlines()[-1]

    exception, greedy = others
    assert (exception.returncode, len(runs(folder, "exception"))) == (1, 2), said[exception]
    again = r"job \d+ \(toy\) failed: RuntimeError: a mistake of ours; another goes on \[.*_0_log.err\]"
    assert len(re.findall(again, said[exception])) == 1
    assert re.search(r"job \d+ \(toy\) failed: RuntimeError: a mistake of ours \[", said[exception].splitlines()[-1])

    assert (greedy.returncode, len(runs(folder, "greedy"))) == (0, 2), said[greedy]
    assert re.search(r"ran out of memory.*; another goes on with 1000 MB \[.*_0_log.err\]", said[greedy])
    assert (folder.folder / "greedy").read_text() == "greedy"


@pytest.mark.long
def test_a_retry_that_slurm_refuses_leaves_the_reason_of_the_failure(folder: Toy, slurm: Slurm) -> None:
    _, errors = start(folder, slurm, "huge", "--memory-factor", "1000").communicate(timeout=120)
    assert len(runs(folder, "huge")) == 1
    said = (
        r"sama launch: job \d+ \(toy\) ran out of memory .*_0_log.err\]; not tried again: sbatch refused the job: Mem.*"
    )
    assert re.fullmatch(said, errors.splitlines()[-1]), errors


@pytest.mark.long
def test_job_that_lost_its_node_is_submitted_again(folder: Toy, slurm: Slurm) -> None:
    """Slurm requeues it by itself, unless told not to: then the launcher submits it again."""
    launcher = start(folder, slurm, "lost", "--slurm", "no-requeue")
    wait_until(lambda: len(runs(folder, "lost")) == 1, "the job to run", seconds=60)
    (node,) = runs(folder, "lost")
    slurm.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=a test")
    wait_until(lambda: len(runs(folder, "lost")) == 2, "the second job to run", seconds=60)
    (folder.folder / "go").touch()
    _, errors = launcher.communicate(timeout=60)
    assert launcher.returncode == 0, errors
    assert re.search(rf"job \d+ \(toy\) lost its node \({node}\).*; another goes on \[", errors)
