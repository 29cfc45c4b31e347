"""Stages carried by a real Slurm."""

import getpass
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sama.guard import identity
from tests.toy_pipeline import PYTHON, Toy, wait_until

SLURM = ("launch", "--launcher", "slurm")
WAIT = (*SLURM, "--", "toy", "--out", "out.txt", "--mode", "wait")


@dataclass(frozen=True)
class Slurm:
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What a program of Slurm says."""
        where = {**os.environ, **self.environment}
        return subprocess.run(command, env=where, check=True, capture_output=True, text=True).stdout

    def queue(self) -> list[str]:
        """The names of our jobs that have not ended."""
        return self.ask("squeue", "--noheader", "--format=%j").split()


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    if "SLURM_CONF" not in os.environ or shutil.which("sbatch") is None:
        pytest.skip("needs Slurm")
    found = Slurm({name: os.environ[name] for name in ("SLURM_CONF", "PATH")})
    yield found


@pytest.fixture
def empty(slurm: Slurm) -> Iterator[None]:
    """The queue as it was found, whatever a test leaves in it."""
    yield
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], env={**os.environ, **slurm.environment}, check=True)


pytestmark = pytest.mark.usefixtures("empty")


def begun(toy: Toy) -> int:
    """How often the stage of mode `wait` was begun."""
    path = toy.folder / "begun.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def job_of(toy: Toy, argument: str) -> str:
    """The id of the job that was submitted with this argument."""
    facts = [json.loads(path.read_text()) for path in toy.folder.glob("logs/slurm/toy/*/job.json")]
    (found,) = [each["job"] for each in facts if argument in each["arguments"]]
    return found


def test_finished_job_is_run_again_only_if_its_output_is_gone(toy: Toy, slurm: Slurm) -> None:
    arguments = (*SLURM, "--memory-mb", "500", "--slurm", "nice=10", "--", "toy", "--out", "out.txt", "--mode", "wait")
    (toy.folder / "go").touch()
    first = toy.run(*arguments, **slurm.environment)
    assert (first.returncode, first.stdout) == (0, "begun\n"), first.stderr
    written = (toy.folder / "out.txt").read_text()
    again = toy.run(*arguments, **slurm.environment)
    assert (again.returncode, again.stdout) == (0, "")
    assert "finished before" in again.stderr
    assert begun(toy) == 1
    (toy.folder / "out.txt").write_text("by somebody else")
    assert toy.run(*arguments, **slurm.environment).returncode == 0
    assert (toy.folder / "out.txt").read_text() == written
    assert begun(toy) == 2
    (script,) = list(toy.folder.glob("logs/slurm/toy/*/*_submission.sh"))[:1]
    assert {"#SBATCH --mem=500M", "#SBATCH --nice=10"} <= set(script.read_text().splitlines())


@pytest.mark.parametrize("killed", ["launcher", "owner"])
def test_job_outlives_its_launcher_and_is_joined(toy: Toy, slurm: Slurm, killed: str) -> None:
    owner = toy.start("sleep", "60")
    launcher = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment, SAMA_OWNER_PID=identity(owner.pid))
    toy.wait_asleep()
    {"launcher": launcher, "owner": owner}[killed].kill()
    assert launcher.wait(timeout=5) == (-9 if killed == "launcher" else 143)
    assert len(slurm.queue()) == 1
    joined = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment)
    assert joined.stderr is not None
    assert "joined" in joined.stderr.readline()
    (toy.folder / "go").touch()
    output, errors = joined.communicate(timeout=30)
    assert (joined.returncode, output) == (0, "begun\n"), errors
    assert begun(toy) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_cancels_the_job(toy: Toy, slurm: Slurm, number: signal.Signals, code: int) -> None:
    launcher = toy.start(
        PYTHON, "program.py", *SLURM, "--", "toy", "--out", "out.txt", "--mode", "sleep", **slurm.environment
    )
    stage = toy.wait_asleep()
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=30)
    assert launcher.returncode == code, errors
    assert slurm.queue() == []
    assert not stage.is_running()
    assert "Traceback" not in errors
    assert not list(toy.folder.glob("*out.txt*")), "nothing half-written"


def test_failures_say_what_happened(toy: Toy, slurm: Slurm) -> None:
    """All at once, each in one line with the path of its log; what does not fail goes on."""
    expected = {
        "mendable": "sama toy: the label 7 of row 3 is outside of 0..4",
        "bug": r"sama launch: job \d+ \(toy\) failed: RuntimeError: a mistake of ours \[.*_0_log.err\]",
        "killed": r"sama launch: job \d+ \(toy\) was killed by signal 9 .*Slurm does not say which\) \[.*_0_log.err\]",
        "greedy": r"sama launch: job \d+ \(toy\) ran out of memory.* \[.*_0_log.err\]",
        "wait": rf"sama launch: job \d+ \(toy\) was cancelled by {getpass.getuser()} \[.*_0_log.err\]",
    }
    launchers = {
        mode: toy.start(
            PYTHON,
            "program.py",
            *SLURM,
            "--memory-mb",
            "200",
            "--",
            "toy",
            "--out",
            mode,
            "--mode",
            mode,
            **slurm.environment,
        )
        for mode in [*expected, "ok"]
    }
    toy.wait_asleep()
    slurm.ask("scancel", job_of(toy, "wait"))
    for mode, launcher in launchers.items():
        _, errors = launcher.communicate(timeout=60)
        if mode == "ok":
            assert launcher.returncode == 0, errors
            continue
        assert launcher.returncode == 1
        assert re.fullmatch(expected[mode], errors.splitlines()[-1]), errors
        assert re.search(r"the log of job \d+ is .*_0_log.err", errors)


@pytest.mark.long
def test_twenty_kills(toy: Toy, slurm: Slurm) -> None:
    """Whenever the launcher is killed, there is one job, and it runs once."""
    draws = random.Random(0)
    (toy.folder / "go").touch()
    for turn in range(20):
        arguments = (PYTHON, "program.py", *SLURM, "--", "toy", "--out", f"out{turn}.txt", "--mode", "wait")
        launcher = toy.start(*arguments, **slurm.environment)
        time.sleep(draws.uniform(0.3, 1.5))
        launcher.kill()
        last = toy.start(*arguments, **slurm.environment)
        _, errors = last.communicate(timeout=60)
        assert last.returncode == 0, errors
        assert begun(toy) == turn + 1
        assert len(list(toy.folder.glob("logs/slurm/toy/*/*_submission.sh"))) == turn + 1
    wait_until(lambda: slurm.queue() == [], "the queue to be empty")
