"""Stages carried by submitit's local executor, with real jobs."""

import signal
from pathlib import Path

import psutil
import pytest

from sama.errors import SamaError
from sama.guard import identity
from sama.launch.local import _devices
from tests.toy_pipeline import PYTHON, Toy, left, tree, wait_until

LOCAL = ("launch", "--launcher", "local", "--logs", "logs")


def text_of(toy: Toy) -> str:
    return (toy.folder / "out.txt").read_text()


def test_job_equals_the_stage_run_in_place(toy: Toy) -> None:
    arguments = ("toy", "--out", "out.txt", "--seeds", "1,2", "--wanted")
    results = []
    for prefix in ((), ("launch", "--launcher", "inline", "--"), (*LOCAL, "--")):
        result = toy.run(*prefix, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "begun\n", "")
        results.append(text_of(toy).replace("'gpus': ''", "'gpus': None"))
        (toy.folder / "out.txt").unlink()
    assert results[0] == results[1] == results[2]
    assert len(list(toy.folder.glob("logs/toy-*/*_result.pkl"))) == 1, "the last one was submitit's"


def test_failing_job_ends_with_its_own_line_and_its_log(toy: Toy) -> None:
    result = toy.run(*LOCAL, "--", "toy", "--out", "out.txt", "--mode", "mendable")
    assert result.returncode == 1
    assert result.stdout == "begun\n"
    *before, last = result.stderr.splitlines()
    assert last == "sama toy: the label 7 of row 3 is outside of 0..4"
    assert before[0] == "on the way"
    (log,) = toy.folder.glob("logs/toy-*/*_log.err")
    assert str(log) in before[1]
    assert len(before) == 2
    assert last in log.read_text()


def test_mistake_of_ours_in_a_job_shows_its_traceback(toy: Toy) -> None:
    result = toy.run(*LOCAL, "--", "toy", "--out", "out.txt", "--mode", "bug")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert "RuntimeError: a mistake of ours\nsama launch: the log of job" in result.stderr


def test_killed_job_is_said_to_be_killed(toy: Toy) -> None:
    result = toy.run(*LOCAL, "--", "toy", "--out", "out.txt", "--mode", "killed")
    assert result.returncode == 1
    assert "(toy) was killed from outside" in result.stderr.splitlines()[-1]


def test_job_over_its_time_limit_says_so(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
from pathlib import Path
from sama.launch import local
from sama.launch.following import Resources
import program
local.NOTICE_SECONDS = 3
raise SystemExit(local.run_local(
    ["toy", "--out", "out.txt", "--mode", "sleep"], Resources(1, 0, None, 0.1, Path("logs"))))
"""
    process = toy.start(PYTHON, "-c", code)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "sama toy: the job reached its time limit of 0.1 minutes"
    assert not list(toy.folder.glob("*out.txt*")), "nothing half-written"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_cancels_the_job_and_all_below_it(toy: Toy, number: signal.Signals, code: int) -> None:
    launcher = toy.start(PYTHON, "program.py", *LOCAL, "--", "toy", "--out", "out.txt", "--mode", "sleep")
    toy.wait_asleep()
    wait_until(lambda: "sleep" in [process.name() for process in tree(launcher.pid)], "the stage's own child")
    processes = tree(launcher.pid)
    assert len(processes) == 4, "launcher, controller, stage, sleep"
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=10)
    assert launcher.returncode == code, errors
    assert left(processes) == []
    assert "Traceback" not in errors
    assert not list(toy.folder.glob("*out.txt*")), "nothing half-written"


def test_interrupt_from_the_terminal_is_one_line(toy: Toy) -> None:
    """A Ctrl-C reaches every process of the group; only the launcher answers."""
    launch = f"{PYTHON} program.py {' '.join(LOCAL)} -- toy --out out.txt --mode sleep"
    # Job control gives the launcher a group of its own; what the shell then says of its job is not the launcher's.
    command = f"set -m; {launch} & echo $!; exec 2>/dev/null; wait"
    shell = toy.start("bash", "-c", command)
    toy.wait_asleep()
    assert shell.stdout is not None
    group = int(shell.stdout.readline())
    processes = tree(group)
    for process in processes:
        process.send_signal(signal.SIGINT) if process.name() != "sleep" else None
    wait_until(lambda: not left(processes), "all to end")
    assert shell.stderr is not None
    assert shell.stderr.read().splitlines() == ["sama launch: interrupted"]


def test_job_dies_when_its_launcher_is_killed(toy: Toy) -> None:
    launcher = toy.start(PYTHON, "program.py", *LOCAL, "--", "toy", "--out", "out.txt", "--mode", "sleep")
    toy.wait_asleep()
    processes: list[psutil.Process] = tree(launcher.pid)
    launcher.kill()
    wait_until(lambda: not left(processes), "all to end", seconds=3)


def test_job_that_waits_for_its_pickle_dies_with_its_launcher(toy: Toy) -> None:
    """A launcher killed between the start of the job and the pickle's arrival; submitit would wait for a minute."""
    owner = toy.start("sleep", "60")
    environment = {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_JOB_ID": "1", "SUBMITIT_LOG_LEVEL": "INFO"}
    job = toy.start(PYTHON, "-u", "-m", "sama.launch.local", "logs", SAMA_OWNER_PID=identity(owner.pid), **environment)
    assert job.stdout is not None
    while "Loading pickle" not in job.stdout.readline():
        assert job.poll() is None
    owner.kill()
    job.wait(timeout=3)


@pytest.mark.parametrize(
    ("visible", "gpus", "expected"),
    [(None, 0, ""), (None, 2, "0,1"), ("3,5,7", 2, "3,5"), ("GPU-a,GPU-b", 1, "GPU-a"), ("3", 0, "")],
)
def test_job_sees_the_first_of_our_devices(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, gpus: int, expected: str
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _devices(gpus) == expected


def test_more_devices_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(SamaError, match="--gpus 2: CUDA_VISIBLE_DEVICES='1' allows 1"):
        _devices(2)


def test_devices_reach_the_job(toy: Toy) -> None:
    result = toy.run(*LOCAL, "--gpus", "1", "--", "toy", "--out", "out.txt", CUDA_VISIBLE_DEVICES="GPU-x,GPU-y")
    assert result.returncode == 0, result.stderr
    assert "'gpus': 'GPU-x'" in text_of(toy)
    assert Path(toy.folder, "logs").is_dir()
