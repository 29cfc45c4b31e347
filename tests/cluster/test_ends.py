"""How jobs end that did nothing wrong: their node goes, or somebody else's job takes its place."""

import re
from collections.abc import Iterator

import pytest

from tests.cluster.slurm import Slurm
from tests.cluster.test_launch_slurm import SLURM, _empty, begun, job_of, queue
from tests.toy_pipeline import PYTHON, Toy, wait_until

__all__ = ["_empty"]  # the fixture is in use here too
FIRST = "127.0.0.11"


@pytest.fixture
def node(slurm: Slurm) -> Iterator[str]:
    """The first node; whatever a test makes of it, it is idle again afterwards."""
    yield FIRST
    slurm.ask("scontrol", "update", f"nodename={FIRST}", "state=resume")
    idle = ("sinfo", "--noheader", f"--nodes={FIRST}", "--partition=normal", "--responding", "--format=%T")
    wait_until(lambda: slurm.ask(*idle) == "idle", "the node to come back", seconds=60)


def test_job_survives_a_drained_node_and_one_that_goes_down(toy: Toy, slurm: Slurm, node: str) -> None:
    """Drained: it goes on there. Down: it is requeued on another, or, if it may not be, says what it lost."""
    ends = {"requeued": (), "lost": ("--slurm", "no-requeue")}
    launchers = {
        out: toy.start(
            PYTHON, "program.py", *SLURM, *more, "--", "toy", "--out", out, "--mode", "wait", **slurm.environment
        )
        for out, more in ends.items()
    }
    wait_until(lambda: begun(toy) == 2, "both jobs to run", seconds=60)
    where = slurm.ask("squeue", "--noheader", "--format=%N").split()
    assert where == [node, node]
    slurm.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    assert sorted(queue(slurm, toy).values()) == ["RUNNING", "RUNNING"]
    slurm.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    _, errors = launchers["lost"].communicate(timeout=120)
    assert launchers["lost"].returncode == 1
    lost = rf"sama launch: job \d+ \(toy\) lost its node \({node}\) and was not requeued \[.*_0_log.err\]"
    assert re.fullmatch(lost, errors.splitlines()[-1]), errors
    (toy.folder / "go").touch()
    _, errors = launchers["requeued"].communicate(timeout=120)
    assert launchers["requeued"].returncode == 0, errors
    assert errors.count("is submitted") == 1  # Slurm itself began it again
    assert begun(toy) == 3
    assert (toy.folder / "requeued").exists()
    assert not (toy.folder / "lost").exists()


def test_preempted_job_that_is_cancelled_is_submitted_again(toy: Toy, slurm: Slurm) -> None:
    """A partition may end the jobs that are in the way, instead of requeueing them."""
    launch = (*SLURM, "--partition", "scavenger", "--", "toy", "--out", "out", "--mode", "wait")
    launcher = toy.start(PYTHON, "program.py", *launch, **slurm.environment)
    toy.wait_asleep()
    before = job_of(toy, "out")
    slurm.ask("sbatch", "--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null", "--wrap=sleep 1")
    wait_until(lambda: begun(toy) == 2, "the second job", seconds=60)
    (toy.folder / "go").touch()
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, errors
    assert f"job {before} was preempted: another goes on from its checkpoint" in errors
    assert job_of(toy, "out") != before
    assert slurm.ask("sacct", "--noheader", "--allocations", f"--jobs={before}", "--format=State%20") == "PREEMPTED"
