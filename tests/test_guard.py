"""Owners, locks and what is left after a kill -9, with real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sama import guard
from sama.errors import SamaError
from tests.toy_pipeline import PYTHON, Toy, left, tree, wait_until

LINUX = sys.platform.startswith("linux")
HOLD = "from sama import guard; guard.hold_folder(); print('held', flush=True); import time; time.sleep(60)"
JOB = "from sama import guard; guard.hold_job_lock(); print('held', flush=True); import time; time.sleep(60)"


def held_by(toy: Toy, code: str) -> subprocess.Popen[str]:
    process = toy.start(PYTHON, "-c", code)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_identity_names_one_process_for_ever() -> None:
    process = subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE)
    name = guard.identity(process.pid)
    assert guard.alive(name)
    assert not guard.alive(f"{process.pid}:1"), "the same pid with another start time is another process"
    process.kill()
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, "the zombie")
    assert not guard.alive(name), "a zombie is dead"
    process.communicate()
    assert not guard.alive(name)


def test_owner_of_another_form_is_refused() -> None:
    with pytest.raises(SamaError, match="SAMA_OWNER_PID: expected pid:starttime, got 'me'"):
        guard.alive("me")


def test_own_environment_names_this_process() -> None:
    assert guard.own_environment() == {"SAMA_OWNER_PID": guard.identity(os.getpid())}


def test_stage_dies_with_its_owner_and_cleans_up(toy: Toy) -> None:
    owner = toy.start("sleep", "60")
    stage = toy.start(
        PYTHON, "program.py", "toy", "--out", "x/out.txt", "--mode", "sleep", SAMA_OWNER_PID=guard.identity(owner.pid)
    )
    toy.wait_asleep()
    processes = tree(stage.pid)
    assert [p.name() for p in processes][1:] == ["sleep"]
    assert len(list(Path(toy.folder, "x").iterdir())) == 1, "the temporary file"
    owner.kill()
    wait_until(lambda: not left(processes), "the stage and its child to end", seconds=3)
    assert list(Path(toy.folder, "x").iterdir()) == []


def test_stage_that_cannot_be_interrupted_dies_all_the_same(toy: Toy) -> None:
    owner = toy.start("sleep", "60")
    code = """
import signal, subprocess, time
from sama import guard
signal.signal(signal.SIGTERM, signal.SIG_IGN)
guard.watch_owner()
subprocess.Popen(["sleep", "60"])
print("held", flush=True)
time.sleep(60)
"""
    stage = toy.start(PYTHON, "-c", code, SAMA_OWNER_PID=guard.identity(owner.pid))
    assert stage.stdout is not None
    stage.stdout.readline()
    processes = tree(stage.pid)
    assert len(processes) == 2
    owner.kill()
    wait_until(lambda: not left(processes), "both to end", seconds=3)


def test_stage_dies_with_the_shell_between_it_and_its_owner(toy: Toy) -> None:
    command = f"{PYTHON} program.py toy --out out.txt --mode sleep; true"
    shell = toy.start("bash", "-c", command, **guard.own_environment())
    toy.wait_asleep()
    processes = tree(shell.pid)
    assert len(processes) == 3
    shell.kill()
    wait_until(lambda: not left(processes), "the stage to end", seconds=3)


def test_stage_of_a_dead_owner_never_begins(toy: Toy) -> None:
    dead = subprocess.Popen(["true"])
    name = guard.identity(dead.pid)
    dead.wait()
    result = toy.run("toy", "--out", "out.txt", SAMA_OWNER_PID=name)
    assert (result.returncode, result.stdout) == (143, "")
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code = deaf + "from sama import guard; guard.watch_owner(); print('begun')"
    output, _ = toy.start(PYTHON, "-c", code, SAMA_OWNER_PID=name).communicate()
    assert output == "", "not even for the moment until the first poll"


def test_stage_without_an_owner_is_not_watched(toy: Toy) -> None:
    assert toy.run("toy", "--out", "out.txt").returncode == 0


def test_second_pipeline_is_refused_by_name_and_a_dead_one_is_not(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy.folder)
    monkeypatch.delenv(guard.HELD, raising=False)
    first = held_by(toy, HOLD)
    with pytest.raises(SamaError, match=rf"another pipeline \(pid {first.pid}, since 2.*\) holds {toy.folder}"):
        guard.hold_folder()
    first.kill()
    first.wait()
    held_by(toy, HOLD)


def test_held_folder_is_held_once(toy: Toy) -> None:
    code = "from sama import guard; guard.hold_folder(); guard.hold_folder(); print('twice')"
    assert toy.start(PYTHON, "-c", code).communicate()[0] == "twice\n"


def test_holding_one_folder_says_nothing_of_another(toy: Toy) -> None:
    held_by(toy, HOLD)
    elsewhere = f"{guard.identity(os.getpid())}@/elsewhere"
    code = "from sama import guard; guard.hold_folder()"
    error = toy.start(PYTHON, "-c", code, SAMA_FOLDER_HELD=elsewhere).communicate()[1]
    assert "another pipeline" in error


def test_waits_for_jobs_and_names_those_that_do_not_end(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(toy.folder)
    Path(".snakemake").mkdir()
    jobs = [held_by(toy, JOB), held_by(toy, JOB)]
    pids = ", ".join(str(pid) for pid in sorted(job.pid for job in jobs)) if LINUX else "unknown"
    with pytest.raises(SamaError, match=rf"jobs still run in {toy.folder} \(pid {pids}\) after 0.3 s"):
        guard.wait_for_jobs(0.3)
    assert capfd.readouterr().err == f"sama: waiting for jobs of an earlier run to end (pid {pids})\n"
    for job in jobs:
        job.kill()
        job.wait()
    guard.wait_for_jobs(5)
    assert capfd.readouterr().err == ""


def test_no_job_lock_where_no_pipeline_ran(toy: Toy) -> None:
    assert toy.run("toy", "--out", "out.txt").returncode == 0
    assert not Path(toy.folder, ".snakemake").exists()


@pytest.mark.skipif(not LINUX, reason="only Linux can signal a child when its parent dies")
def test_dies_with_parent_through_exec(toy: Toy) -> None:
    child = "import os; from sama import guard; guard.die_with_parent(); os.execvp('sleep', ['sleep', '60'])"
    parent = toy.start("bash", "-c", f'{PYTHON} -c "{child}"; true')
    wait_until(lambda: [p.name() for p in tree(parent.pid)][1:] == ["sleep"], "the exec")
    processes = tree(parent.pid)
    parent.kill()
    wait_until(lambda: not left(processes), "the child to end", seconds=2)


LEVELS = ["make", "snakemake", "launcher", "controller", "stage"]


def level(processes: list[psutil.Process], name: str) -> psutil.Process:
    marks = {
        "make": lambda command: command[0] == "make",
        "snakemake": lambda command: "snakemake" in command,
        "launcher": lambda command: "launch" in command and "program.py" in command and "-c" not in command,
        "controller": lambda command: "submitit.local._local" in command,
        "stage": lambda command: "sama.launch.local" in command,
    }
    found = [process for process in processes if marks[name](process.cmdline())]
    assert len(found) == 1, [process.cmdline() for process in processes]
    return found[0]


@pytest.mark.parametrize("victim", LEVELS)
def test_nothing_survives_a_kill_and_the_next_run_finishes(toy: Toy, victim: str) -> None:
    make = toy.start("make", "reproduce")
    toy.wait_asleep()
    processes = tree(make.pid)
    wait_until(lambda: "sleep" in [process.name() for process in tree(make.pid)], "the stage's own child")
    processes = tree(make.pid)
    for name in LEVELS:
        level(processes, name)
    os.kill(level(processes, victim).pid, signal.SIGKILL)
    if victim == "stage":  # nobody is left who knows its children; workers of torch see it by themselves
        next(process for process in processes if process.name() == "sleep").kill()
    wait_until(lambda: not left(processes), f"all to end after kill -9 of {victim}", seconds=5)
    assert not Path(toy.folder, "results/toy.txt").exists()
    if victim == "make":
        Path(toy.folder, "awake").touch()
        again = toy.start("make", "reproduce")
        _, errors = again.communicate(timeout=60)
        assert again.returncode == 0, errors
        assert [path.name for path in Path(toy.folder, "results").iterdir()] == ["toy.txt"]


def test_second_pipeline_beside_a_living_one_is_refused(toy: Toy) -> None:
    make = toy.start("make", "reproduce")
    toy.wait_asleep()
    result = toy.run("pipeline", "--", "--cores", "1")
    assert result.returncode == 1
    assert result.stderr.startswith(f"sama pipeline: another pipeline (pid {tree(make.pid)[1].pid}, since")
    assert result.stderr.count("\n") == 1
    dry = toy.run("pipeline", "--", "--cores", "1", "--dry-run", "--nolock")
    assert dry.returncode == 0, dry.stderr
