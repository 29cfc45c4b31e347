"""Stages carried by a real Slurm."""

import fcntl
import getpass
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sama.guard import identity
from tests.cluster.slurm import Slurm
from tests.stages.small_digits import DATA
from tests.toy_pipeline import PYTHON, Toy, wait_until

SLURM = ("launch", "--launcher", "slurm")
WAIT = (*SLURM, "--", "toy", "--out", "out.txt", "--mode", "wait")


def queue(slurm: Slurm, toy: Toy) -> dict[str, str]:
    """The jobs of the toy's folder that have not ended, and their states."""
    lines = [line.split("|") for line in slurm.ask("squeue", "--noheader", "--format=%A|%T|%Z").splitlines()]
    return {job: state for job, state, folder in lines if Path(folder) == toy.folder}


@pytest.fixture(autouse=True)
def _empty(slurm: Slurm, toy: Toy) -> Iterator[None]:
    """Whatever a test leaves in the queue is cancelled."""
    yield
    if left := queue(slurm, toy):
        slurm.ask("scancel", *left)


def begun(toy: Toy) -> int:
    """How often the stage of mode `wait` was begun."""
    path = toy.folder / "begun.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def job_of(toy: Toy, argument: str) -> str:
    """The id of the job that was submitted with this argument."""
    facts = [json.loads(path.read_text()) for path in toy.folder.glob("logs/slurm/*/*/job.json")]
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
    (toy.folder / ".snakemake").mkdir()
    launcher = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment, SAMA_OWNER_PID=identity(owner.pid))
    toy.wait_asleep()
    {"launcher": launcher, "owner": owner}[killed].kill()
    assert launcher.wait(timeout=30) == (-9 if killed == "launcher" else 143)
    assert len(queue(slurm, toy)) == 1
    with (toy.folder / ".snakemake" / "sama-jobs.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a new pipeline need not wait for the job
    joined = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment)
    assert joined.stderr is not None
    assert "joined" in joined.stderr.readline()
    (toy.folder / "go").touch()
    output, errors = joined.communicate(timeout=120)
    assert (joined.returncode, output) == (0, "begun\n"), errors
    assert begun(toy) == 1


def test_job_that_ended_with_nobody_waiting_is_not_run_again(toy: Toy, slurm: Slurm) -> None:
    """Not even where its result is deleted, as Snakemake does if it was killed too."""
    launcher = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment)
    toy.wait_asleep()
    launcher.kill()
    (toy.folder / "go").touch()
    wait_until(lambda: queue(slurm, toy) == {}, "the job to end", seconds=60)
    before = (toy.folder / "out.txt").read_text()
    (toy.folder / "out.txt").unlink()
    again = toy.run(*WAIT, **slurm.environment)
    assert "finished before" in again.stderr
    assert (again.returncode, begun(toy), (toy.folder / "out.txt").read_text()) == (0, 1, before)
    assert not list(toy.folder.glob("logs/slurm/toy/*/kept"))


def test_job_that_writes_to_the_same_place_from_other_inputs_is_cancelled(toy: Toy, slurm: Slurm) -> None:
    launcher = toy.start(PYTHON, "program.py", *WAIT, **slurm.environment)
    toy.wait_asleep()
    launcher.kill()
    (before,) = queue(slurm, toy)
    other = toy.run(*SLURM, "--", "toy", "--out", "out.txt", "--seeds", "5", **slurm.environment)
    assert other.returncode == 0, other.stderr
    assert f"job {before} " in other.stderr
    assert queue(slurm, toy) == {}
    assert "'seeds': (5,)" in (toy.folder / "out.txt").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_cancels_the_job(toy: Toy, slurm: Slurm, number: signal.Signals, code: int) -> None:
    launcher = toy.start(
        PYTHON, "program.py", *SLURM, "--", "toy", "--out", "out.txt", "--mode", "sleep", **slurm.environment
    )
    stage = toy.wait_asleep()
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == code, errors
    assert queue(slurm, toy) == {}
    assert not stage.is_running()
    assert "Traceback" not in errors
    assert not list(toy.folder.glob("*out.txt*")), "nothing half-written"


def test_failures_say_what_happened(toy: Toy, slurm: Slurm) -> None:
    """All at once, each in one line with the path of its log; what does not fail goes on."""
    expected = {
        "mendable": "sama toy: the label 7 of row 3 is outside of 0..4",
        "bug": r"sama launch: job \d+ \(toy\) failed: RuntimeError: a mistake of ours \[.*_0_log.err\]",
        "killed": r"sama launch: job \d+ \(toy\) was killed by signal 9: out of memory, if nobody.* \[.*_0_log.err\]",
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
        _, errors = launcher.communicate(timeout=120)
        if mode == "ok":
            assert launcher.returncode == 0, errors
            continue
        assert launcher.returncode == 1
        assert re.fullmatch(expected[mode], errors.splitlines()[-1]), errors
        assert re.search(r"the log of job \d+ is .*_0_log.err", errors)


def test_launcher_killed_while_it_submits(toy: Toy, slurm: Slurm) -> None:
    """Killed before sbatch has spoken with the controller; the next one waits for that sbatch, and joins its job."""
    real = shutil.which("sbatch", path=slurm.environment["PATH"])
    script = toy.folder / "bin" / "sbatch"
    script.parent.mkdir()
    # $PPID is flock, and the launcher its parent
    script.write_text(f'#!/bin/sh\nkill -9 $(ps -o ppid= -p $PPID)\nsleep 5\nexec {real} "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{slurm.environment['PATH']}"
    (toy.folder / "go").touch()
    killed = toy.start(PYTHON, "program.py", *WAIT, **{**slurm.environment, "PATH": path})
    assert killed.wait(timeout=60) == -9
    assert queue(slurm, toy) == {}
    joined = toy.run(*WAIT, **slurm.environment)
    assert (joined.returncode, joined.stdout) == (0, "begun\n"), joined.stderr
    assert "joined" in joined.stderr
    assert begun(toy) == 1


SLOW = """
import time
from sama.metrics import Progress
from sama.stages.retrain import run

fast = Progress.update


def update(self, step, **numbers):
    time.sleep({seconds})
    fast(self, step, **numbers)


Progress.update = update
"""


def slowed(toy: Toy, settings: Mapping[str, Any], stage: str) -> tuple[str, ...]:
    """Data and a configuration in the toy's folder, whose stage `slow` is this module; the arguments that name them."""
    (toy.folder / "training.yaml").write_text(json.dumps(settings))
    (toy.folder / "slow_stage.py").write_text(stage)
    program = (toy.folder / "program.py").read_text()
    (toy.folder / "program.py").write_text(
        program.replace('["toy"] = cli.Stage("toy_stage"', '["slow"] = cli.Stage("slow_stage"')
    )
    prepared = toy.run("prepare", "--config", "training.yaml", "--out", "data", "--seeds", "0")
    assert prepared.returncode == 0, prepared.stderr
    images = ("--images", "data/images.npy", "--manifest", "data/seed0/manifest.parquet")
    return ("--config", "training.yaml", *images, "--seed", "0")


def retraining(toy: Toy, steps: int, seconds: float) -> tuple[str, ...]:
    """The arguments of a real training that takes `seconds` a step, without those that say where it writes."""
    settings = {
        "data": DATA,
        "model": {"drop_rate": 0.3},  # so that the random state matters
        "training": {"steps": steps, "batch_size": 16, "log_every": 5, "checkpoint_every": 10**6},
        "runtime": {"device": "cpu"},
    }
    return (*slowed(toy, settings, SLOW.format(seconds=seconds)), "--cell", "full")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logged(toy: Toy) -> int:
    """The last step that the training in the folder `work` has logged."""
    path = toy.folder / "work" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0


@pytest.mark.parametrize("more", [(), pytest.param(("--array-limit", "2"), marks=pytest.mark.long)])
def test_job_asked_to_stop_goes_on_where_it_was(toy: Toy, slurm: Slurm, more: tuple[str, ...]) -> None:
    """There is no periodic checkpoint: what is taken up is the step at which the signal came."""
    arguments = retraining(toy, steps=40, seconds=0.1)
    launch = (PYTHON, "program.py", *SLURM, *more, "--", "slow", *arguments, "--out", "out", "--work", "work")
    alone = toy.run("retrain", *arguments, "--out", "alone", "--work", "work_alone")
    assert alone.returncode == 0, alone.stderr
    launcher = toy.start(*launch, **slurm.environment)  # after it, or a busy machine would miss the signal's moment
    wait_until(lambda: logged(toy) >= 10, "the training to be under way", seconds=60)
    slurm.ask("scancel", "--signal=USR2", job_of(toy, "out"))
    wait_until((toy.folder / "work" / "checkpoint.pt").exists, "the checkpoint", seconds=60)
    metrics = toy.folder / "work" / "metrics.jsonl"
    wait_until(lambda: "PENDING" in queue(slurm, toy).values(), "the requeue", seconds=60)
    metrics.write_text(metrics.read_text().replace("{", '{"seen": 1, ', 1))  # lost by a run that begins anew
    _, errors = launcher.communicate(timeout=120)
    assert launcher.returncode == 0, errors
    assert errors.count("asked to stop") == 1
    assert "was requeued" in errors
    assert "Traceback" not in errors
    expected = files(toy.folder / "alone")
    expected["metrics.jsonl"] = expected["metrics.jsonl"].replace(b"{", b'{"seen": 1, ', 1)
    assert files(toy.folder / "out") == expected


RANKS = """
import json, os, time
from pathlib import Path

processes = None  # this stage knows of them
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def run(*, out: Path) -> None:
    rank = os.environ["RANK"]
    print(f"rank {rank} speaks")
    (out / f"{rank}.json").write_text(json.dumps([os.environ[name] for name in NAMES]))
    if rank == os.environ.get("FAILS"):
        raise RuntimeError("a mistake of one")
    if "FAILS" in os.environ:
        time.sleep(600)
"""


def test_every_task_knows_its_rank_and_logs_by_itself(toy: Toy, slurm: Slurm) -> None:
    (toy.folder / "toy_stage.py").write_text(RANKS)
    (toy.folder / "out").mkdir()
    asked = (*SLURM, "--nodes", "2", "--tasks-per-node", "2", "--", "toy", "--out", "out")
    done = toy.run(*asked, **slurm.environment)
    assert (done.returncode, done.stdout) == (0, "rank 0 speaks\n"), done.stderr
    told = [json.loads((toy.folder / "out" / f"{rank}.json").read_text()) for rank in range(4)]
    assert [each[:3] for each in told] == [[str(rank), "4", str(rank % 2)] for rank in range(4)]
    assert len({(address, port) for *_, address, port in told}) == 1
    logs = sorted(path.read_text() for path in toy.folder.glob("logs/slurm/toy/*/*_log.out"))
    assert logs == [f"rank {rank} speaks\n" for rank in range(4)]
    (toy.folder / "other").mkdir()
    failed = toy.run(*asked[:-1], "other", **slurm.environment, FAILS="3")
    assert failed.returncode == 1
    assert re.search(r"failed: RuntimeError: a mistake of one \[.*_3_log.err\]", failed.stderr.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("by", ["preemption", "time limit"])
def test_interrupted_job_ends_with_the_same_bytes(toy: Toy, slurm: Slurm, by: str) -> None:
    """Three times by a partition of higher priority; at least twice by its limit of a minute."""
    steps, seconds = (200, 0.2) if by == "preemption" else (300, 0.5)  # the signal comes within 75 s of each start
    arguments = retraining(toy, steps, seconds)
    launch = (*SLURM, "--timeout-minutes", "1" if by == "time limit" else "60", "--", "slow")
    launcher = toy.start(
        PYTHON, "program.py", *launch, *arguments, "--out", "out", "--work", "work", **slurm.environment
    )
    alone = toy.start(PYTHON, "program.py", "retrain", *arguments, "--out", "alone", "--work", "work_alone")
    if by == "preemption":
        for at in (20, 40, 60):
            wait_until(lambda at=at: logged(toy) >= at, "the training to be under way", seconds=60)
            slurm.ask(
                "sbatch",
                "--partition=urgent",
                "--exclusive",
                "--nodes=2",
                "--output=/dev/null",
                "--wrap=sleep 1",
            )
            wait_until(lambda: "PENDING" in queue(slurm, toy).values(), "the requeue", seconds=60)
    _, errors = launcher.communicate(timeout=500)
    assert launcher.returncode == 0, errors
    assert errors.count("asked to stop") >= (3 if by == "preemption" else 2), errors
    _, errors = alone.communicate(timeout=500)
    assert alone.returncode == 0, errors
    assert files(toy.folder / "out") == files(toy.folder / "alone")


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
        _, errors = last.communicate(timeout=120)
        assert last.returncode == 0, errors
        assert begun(toy) == turn + 1
        assert len(list(toy.folder.glob("logs/slurm/toy/*/*_submission.sh"))) == turn + 1
    wait_until(lambda: queue(slurm, toy) == {}, "the queue to be empty", seconds=60)
