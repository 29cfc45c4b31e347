"""Many small cells as job arrays of a real Slurm."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm
from tests.toy_pipeline import PYTHON, Toy, wait_until

ARRAY = ("launch", "--launcher", "slurm", "--memory-mb", "300", "--array-limit", "2")
CELL = """
import time
from pathlib import Path


def run(*, out: Path, seed: int) -> None:
    with open(f"began_{out.name}", "a") as stream:
        print(time.time(), file=stream)
    while not Path("go").exists():
        time.sleep(0.05)
    if Path(f"fail{seed}").exists():
        raise RuntimeError(f"cell {seed} is broken")
    time.sleep(1)
    out.write_text(f"{seed}")
    Path(f"ended_{out.name}").write_text(str(time.time()))
"""


@pytest.fixture
def cells(toy: Toy, slurm: Slurm) -> Iterator[Toy]:
    """The toy with a stage that waits for the file `go` and notes when it ran; its queue is empty in the end."""
    (toy.folder / "toy_stage.py").write_text(CELL)
    yield toy
    slurm.ask("scancel", *[f"--name={name}" for name in {each[2] for each in tasks(slurm, toy)}] or ["--name=none"])


def tasks(slurm: Slurm, toy: Toy) -> list[list[str]]:
    """[id, state, name] of what is in the queue from the toy's folder, an array's task each."""
    lines = slurm.ask("squeue", "--noheader", "--array", "--format=%F_%K|%T|%j|%Z").splitlines()
    return [line.split("|")[:3] for line in lines if Path(line.split("|")[3]) == toy.folder]


def launch(toy: Toy, slurm: Slurm, seeds: range, **more: str) -> list[subprocess.Popen[str]]:
    rest, environment = (*ARRAY, "--", "toy"), {**slurm.environment, **more}
    return [
        toy.start(PYTHON, "program.py", *rest, "--out", f"out{seed}", "--seed", str(seed), **environment)
        for seed in seeds
    ]


def slow_sbatch(toy: Toy, slurm: Slurm, before: str) -> str:
    """The PATH with an sbatch that does something before it speaks with the controller."""
    real = shutil.which("sbatch", path=slurm.environment["PATH"])
    script = toy.folder / "bin" / "sbatch"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{before}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{slurm.environment['PATH']}"


def began(toy: Toy) -> dict[str, list[float]]:
    """When each cell began, every time."""
    return {path.name: [float(line) for line in path.read_text().split()] for path in toy.folder.glob("began_*")}


def most_at_a_time(toy: Toy) -> int:
    """From the notes of the cells."""
    moments = [(float(path.read_text()), -1) for path in toy.folder.glob("ended_*")]
    moments += [(moment, 1) for each in began(toy).values() for moment in each]
    running = [sum(step for when, step in moments if when <= moment) for moment, _ in moments]
    return max(running)


def submitted(toy: Toy) -> list[int]:
    """How many cells each array has."""
    return [len(json.loads(path.read_text())) for path in toy.folder.glob("logs/slurm/arrays/*/*/cells.json")]


def test_cells_of_an_array_run_within_the_limit_and_fail_by_themselves(cells: Toy, slurm: Slurm) -> None:
    (cells.folder / "go").touch()
    (cells.folder / "fail3").touch()
    for seed, launcher in enumerate(launch(cells, slurm, range(5))):
        _, errors = launcher.communicate(timeout=120)
        if seed == 3:
            assert launcher.returncode == 1
            said = errors.splitlines()[-1]
            assert re.fullmatch(
                r"sama launch: job \d+_\d \(toy\) failed: RuntimeError: cell 3 is broken \[.*_0_log.err\]", said
            )
        else:
            assert (launcher.returncode, (cells.folder / f"out{seed}").read_text()) == (0, str(seed)), errors
    assert submitted(cells) == [5]
    (cells.folder / "ended_out3").write_text(str(began(cells)["began_out3"][0]))
    assert most_at_a_time(cells) == 2
    assert [len(each) for each in began(cells).values()] == [1] * 5


@pytest.mark.long
def test_killed_launchers_are_joined_and_interrupted_ones_cancel_their_own(cells: Toy, slurm: Slurm) -> None:
    killed = launch(cells, slurm, range(4))
    wait_until(lambda: len(began(cells)) == 2, "two cells to run", seconds=60)
    for launcher in killed:
        launcher.kill()
    before = {task for task, _, _ in tasks(slurm, cells)}
    assert len(before) == 4
    joined = launch(cells, slurm, range(5))  # and one that is new: there is no room for it yet
    for launcher in joined[:4]:
        assert launcher.stderr is not None
        assert re.search(r"job \d+_\d .*joined", launcher.stderr.readline())
    running = int(next(iter(began(cells))).removeprefix("began_out"))
    waiting = next(seed for seed in range(4) if f"began_out{seed}" not in began(cells))
    for launcher in (joined[running], joined[waiting]):
        launcher.send_signal(signal.SIGINT)
        assert launcher.wait(timeout=60) == 130
    after = {task for task, _, _ in tasks(slurm, cells)}
    assert (len(after), after < before) == (2, True)
    (cells.folder / "go").touch()
    for seed in {*range(5)} - {running, waiting}:
        _, errors = joined[seed].communicate(timeout=120)
        assert joined[seed].returncode == 0, errors
    assert sorted(submitted(cells)) == [1, 4]
    assert {len(each) for each in began(cells).values()} == {1}


@pytest.mark.parametrize("when", ["waiting", pytest.param("submitting", marks=pytest.mark.long)])
def test_interrupted_before_it_knows_its_task_leaves_nothing(cells: Toy, slurm: Slurm, when: str) -> None:
    path = slow_sbatch(cells, slurm, "touch submitting; sleep 3")
    launchers = launch(cells, slurm, range(3), PATH=path)
    tickets = "logs/slurm/arrays/*/tickets/sama-*"
    wait_until(lambda: len(list(cells.folder.glob(tickets))) == 3, "the tickets", seconds=60)
    if when == "submitting":
        wait_until((cells.folder / "submitting").exists, "the sbatch", seconds=60)
    for launcher in launchers:
        launcher.send_signal(signal.SIGTERM)
    for launcher in launchers:
        _, errors = launcher.communicate(timeout=120)
        assert launcher.returncode == 143, errors
    assert submitted(cells) == ([3] if when == "submitting" else [])
    assert tasks(slurm, cells) == []
    assert list(cells.folder.glob(tickets)) == []


@pytest.mark.long
def test_launcher_killed_while_it_submits_for_all(cells: Toy, slurm: Slurm) -> None:
    """Killed before sbatch has spoken with the controller: the others wait for that sbatch, and find their tasks."""
    # $PPID is flock, and the launcher its parent
    path = slow_sbatch(cells, slurm, "kill -9 $(ps -o ppid= -p $PPID); sleep 3")
    (cells.folder / "go").touch()
    launchers = launch(cells, slurm, range(3), PATH=path)
    said = [launcher.communicate(timeout=120)[1] for launcher in launchers]
    assert sorted(launcher.returncode for launcher in launchers) == [-9, 0, 0], said
    assert submitted(cells) == [3]
    assert sum("joined" in each for each in said) == 2
    wait_until(lambda: len(list(cells.folder.glob("ended_*"))) == 3, "the orphan", seconds=60)
    assert {len(each) for each in began(cells).values()} == {1}


@pytest.mark.long
def test_ten_kills_of_all_launchers(cells: Toy, slurm: Slurm) -> None:
    """Whenever they are killed, every cell runs once, and nothing stays."""
    draws = random.Random(0)
    (cells.folder / "go").touch()
    for turn in range(10):
        seeds = range(4 * turn, 4 * turn + 4)
        killed = launch(cells, slurm, seeds)
        time.sleep(draws.uniform(0.5, 5))
        for launcher in killed:
            launcher.kill()
        for launcher in launch(cells, slurm, seeds):
            _, errors = launcher.communicate(timeout=120)
            assert launcher.returncode == 0, errors
    assert sorted(began(cells)) == sorted(f"began_out{seed}" for seed in range(40))
    assert {len(each) for each in began(cells).values()} == {1}
    assert most_at_a_time(cells) <= 2
    wait_until(lambda: tasks(slurm, cells) == [], "the queue to be empty", seconds=60)
