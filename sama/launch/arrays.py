"""Cells of one stage that ask for the same, packed into job arrays of Slurm; so many of them run at a time.

Snakemake knows nothing of arrays: it starts a launcher a cell. Each leaves a ticket in the folder of its group (the
same stage, resources and environment) and waits for its turn there. The launcher whose turn it is waits until no more
tickets come, and submits its cell and those of the other tickets as one array. A ticket counts while its launcher
lives, which holds a lock of the kernel on it.

An array is a folder of links, INDEX -> the cell's folder, and `cells.json`. It is whole before sbatch is called, and
its path is the comment of its tasks, so that the queue alone says which cell a task is, whoever was killed in between.

The limit is the group's: LIMIT tasks of an array at a time, if no other of the group is in the queue; else no more
cells are submitted than there is room for.

Tasks of an array share one name, so `singleton`, the second line of defence of single jobs, is not there for them: that
a cell is not submitted twice rests on the locks, which are those of the machine that submits.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from sama import guard
from sama.files import sha256, write_json, write_text
from sama.launch.following import Resources
from sama.launch.queue import Queued

CELLS = "cells.json"
ANSWER = "task"  # in a cell's folder: the task that was submitted for its ticket
SUBMITTING = "submitting"  # sbatch holds the lock of this file
LARGEST = 1000  # Slurm's own limit (MaxArraySize), unless a cluster has another


@dataclass(frozen=True)
class Cell:
    """What one launcher wants to be run.

    Attributes:
        folder: of its job.
        name: of its job, were it one of its own.
        place: hash of where the results go.
        arguments: `STAGE OPTIONS…`.
    """

    folder: str
    name: str
    place: str
    arguments: tuple[str, ...]

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Self:
        """The cell of which these are the fields, from JSON."""
        return cls(**{**facts, "arguments": tuple(facts["arguments"])})

    def tell(self, task: str) -> None:
        """Answer the cell's launcher: this task runs it."""
        write_text(Path(self.folder, ANSWER), task)

    def answer(self) -> str | None:
        """The task that another launcher has submitted for our ticket."""
        path = Path(self.folder, ANSWER)
        return path.read_text(encoding="utf-8") if path.exists() else None


@dataclass(frozen=True)
class Group:
    """Cells that one array can hold.

    Attributes:
        folder: of their tickets and arrays.
        name: of the arrays in Slurm, the same in another environment.
        limit: how many tasks of this name run at a time.
    """

    folder: Path
    name: str
    limit: int

    @contextmanager
    def ticket(self, cell: Cell) -> Iterator[None]:
        """Have the cell submitted by whoever of the group is first."""
        Path(cell.folder, ANSWER).unlink(missing_ok=True)
        tickets = self.folder / "tickets"
        tickets.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=tickets)
        path = tickets / cell.name
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, json.dumps(asdict(cell)).encode())
            Path(name).rename(path)  # the lock is on what has the name, whatever the name
            yield
        finally:
            self.withdraw(cell)
            os.close(handle)

    @contextmanager
    def turn(self) -> Iterator[Callable[[], bool]]:
        """Whether it is our turn, each time it is asked; once it is, until the block ends."""
        descriptor = os.open(self.folder / "turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield lambda: not _is_locked(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    def withdraw(self, cell: Cell) -> None:
        """Take a ticket back."""
        (self.folder / "tickets" / cell.name).unlink(missing_ok=True)

    def waiting(self) -> list[Cell]:
        """The cells whose launchers live and have no answer yet, in the order of their tickets."""
        found = []
        for path in (self.folder / "tickets").glob("sama-*"):
            try:
                with path.open(encoding="utf-8") as stream:
                    if not _is_locked(stream.fileno()):
                        path.unlink()  # of a launcher that was killed
                        continue
                    found.append((os.fstat(stream.fileno()).st_mtime_ns, Cell.read(json.load(stream))))
            except FileNotFoundError:
                continue
        return [cell for _, cell in sorted(found, key=lambda each: each[0]) if cell.answer() is None]

    def fitting(self, own: Cell, waiting: Sequence[Cell], queued: Sequence[Queued]) -> list[Cell]:
        """What may be submitted now: our cell and then others; none without room for ours."""
        known = {each.name for each in queued} | {each.comment for each in queued}
        others = [each for each in waiting if each != own and not {each.name, each.place} & known]
        alive = sum(each.array == self.name for each in queued)
        room = LARGEST if alive == 0 else self.limit - alive
        return [own, *others][: max(room, 0)]

    def pack(self, cells: Sequence[Cell]) -> Path:
        """The folder of a new array of these cells."""
        array = Path(tempfile.mkdtemp(prefix="array-", dir=self.folder))
        array.chmod(0o755)
        for index, cell in enumerate(cells):
            (array / str(index)).symlink_to(cell.folder)
        write_json(array / CELLS, [asdict(cell) for cell in cells])
        return array


def group_of(stage: str, wanted: Resources) -> Group:
    """The group of the stage's cells that ask for the same from this folder, in this environment."""
    own = {"_", "SHLVL", "PWD", "OLDPWD", guard.OWNER, guard.HELD}  # differ, and change nothing in a job
    environment = {key: value for key, value in os.environ.items() if key not in own}
    logs = wanted.logs.absolute()
    request = sha256(json.dumps([stage, asdict(wanted), str(Path.cwd())], sort_keys=True, default=str))[:16]
    content = sha256(request, json.dumps(environment, sort_keys=True))[:16]
    group = Group(logs / "arrays" / f"{stage}-{content}", f"sama-{stage}-array-{request}", wanted.array_limit)
    group.folder.mkdir(parents=True, exist_ok=True)
    return group


@contextmanager
def at_rest(logs: Path) -> Iterator[None]:
    """No other submits an array meanwhile, nor does an sbatch that a killed launcher has left behind.

    It is one lock for all groups: a cell may be in another one than before, in another shell or with more memory.
    """
    folder = logs / "arrays"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        with locked(folder / SUBMITTING):
            pass
        yield


def settings(array: Path, size: int, group: Group, given: dict[str, Any]) -> dict[str, Any]:
    """What submitit writes at the head of the array's batch script, from what all its cells ask for."""
    logs = {kind: f"{array}/%a/%A_%a_%t_log.{kind[:3]}" for kind in ("output", "error")}
    numbers = {"array": f"0-{size - 1}%{min(size, group.limit)}"}
    streams = {kind: path.replace("%t", "0") for kind, path in logs.items()}
    return given | {
        "job_name": group.name,
        "comment": str(array),
        "srun_args": [*given["srun_args"], *(f"--{kind}={path}" for kind, path in logs.items())],
        "additional_parameters": {**given["additional_parameters"], **streams, **numbers},
    }


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file alone."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def known(queued: Sequence[Queued]) -> list[Queued]:
    """The same jobs; a task of an array has the name and the comment that its cell would have as a job of its own."""
    arrays: dict[str, list[Cell]] = {}
    found = []
    for each in queued:
        _, underscore, index = each.job_id.partition("_")
        if underscore and each.comment not in arrays:
            arrays[each.comment] = _cells(Path("/", each.comment, CELLS))
        cells = arrays[each.comment] if underscore else []
        if underscore and int(index) < len(cells):
            cell = cells[int(index)]
            found.append(replace(each, name=cell.name, comment=cell.place, array=each.name))
        else:
            found.append(each)
    return found


def _is_locked(descriptor: int, kind: int = fcntl.LOCK_SH) -> bool:
    """Whether another holds the lock; if none does, we do."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _cells(path: Path) -> list[Cell]:
    try:
        return [Cell.read(each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []  # another's array, whose comment may be anything
