"""Tickets, room and names of job arrays, without a cluster."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sama.launch import arrays
from sama.launch.following import Resources
from sama.launch.queue import Queued


@pytest.fixture
def group(tmp_path: Path) -> arrays.Group:
    return arrays.group_of("toy", Resources(1, 0, 100, 60, tmp_path / "logs", array_limit=4))


def cell(tmp_path: Path, number: int) -> arrays.Cell:
    folder = tmp_path / "cells" / str(number)
    folder.mkdir(parents=True, exist_ok=True)
    return arrays.Cell(str(folder), f"sama-toy-{number}", f"place{number}", ("toy", "--seed", str(number)))


def in_queue(group: arrays.Group, tasks: int) -> list[Queued]:
    return [Queued(f"7_{index}", "PENDING", f"sama-toy-9{index}", "", group.name) for index in range(tasks)]


def test_a_ticket_counts_while_its_launcher_lives(tmp_path: Path, group: arrays.Group) -> None:
    one, two, three = (cell(tmp_path, number) for number in range(3))
    code = f"""
import os
from pathlib import Path
from sama.launch import arrays
group = arrays.Group(Path({str(group.folder)!r}), "name", 4)
with group.ticket(arrays.Cell({two.folder!r}, {two.name!r}, {two.place!r}, {two.arguments!r})):
    print([each.name for each in group.waiting()], flush=True)
    os.kill(os.getpid(), 9)
"""
    with group.ticket(one):
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert killed.stdout == f"{[one.name, two.name]}\n", killed.stderr
        with group.ticket(three):
            assert group.waiting() == [one, three]
            one.tell("7_0")
            assert group.waiting() == [three]
            group.withdraw(three)
            assert group.waiting() == []
    with group.ticket(one):
        assert one.answer() is None, "what an earlier launcher was told does not count"
        assert group.waiting() == [one]


def test_no_more_are_submitted_than_there_is_room_for(tmp_path: Path, group: arrays.Group) -> None:
    cells = [cell(tmp_path, number) for number in range(6)]
    own, others = cells[2], cells[:2] + cells[3:]
    assert group.fitting(own, cells, []) == [own, *others], "the array's own limit holds"
    assert group.fitting(own, cells, in_queue(group, 2)) == [own, others[0]]
    assert group.fitting(own, cells, in_queue(group, 4)) == []
    assert group.fitting(own, cells, in_queue(group, 40)) == []
    elsewhere = [Queued("8", "RUNNING", cells[0].name, "x"), Queued("9", "RUNNING", "y", cells[1].place)]
    assert group.fitting(own, cells, elsewhere) == [own, *cells[3:]], "their own launchers look after these"


def test_a_task_in_the_queue_has_the_name_of_its_cell(tmp_path: Path, group: arrays.Group) -> None:
    cells = [cell(tmp_path, number) for number in range(2)]
    array = group.pack(cells)
    assert [str((array / str(index)).readlink()) for index in range(2)] == [each.folder for each in cells]
    queued = [
        Queued("7_1", "RUNNING", group.name, str(array)),
        Queued("7_2", "RUNNING", group.name, str(array)),
        Queued("8_0", "RUNNING", "another's", ""),
        Queued("8_1", "RUNNING", "another's", "a long story " * 40),
        Queued("8_2", "RUNNING", "another's", str(array / arrays.CELLS)),
        Queued("9", "RUNNING", "sama-toy-x", "place"),
    ]
    mine = Queued("7_1", "RUNNING", cells[1].name, cells[1].place, group.name)
    assert arrays.known(queued) == [mine, *queued[1:]]


def test_another_environment_or_request_is_another_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Resources(1, 0, 100, 60, tmp_path / "logs", array_limit=4)
    group = arrays.group_of("toy", wanted)
    monkeypatch.setenv("SHLVL", "77")
    assert arrays.group_of("toy", wanted) == group
    more = arrays.group_of("toy", replace(wanted, memory_mb=200))
    assert more.name != group.name
    monkeypatch.setenv("SAMA_DATA_DIR", "elsewhere")
    other = arrays.group_of("toy", wanted)
    assert (other.name, other.folder == group.folder) == (group.name, False), "the limit is one for both"
