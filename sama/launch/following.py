"""What the launchers share: what a job asks for, its output as it comes, and signals held back."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn


@dataclass(frozen=True)
class Resources:
    """What a job asks for. The local executor enforces the time limit and the choice of GPUs, Slurm all of it.

    Attributes:
        cpus: of a task. gpus: of a node. memory_mb: of a node.
        logs: folder that holds the jobs' folders; shared by the nodes.
        partition, account, slurm: of Slurm alone; `slurm` are further options of sbatch, KEY=VALUE or KEY.
        array_limit: of Slurm alone: cells of one stage and these resources are packed into job arrays, of which so many
            tasks run at a time. 0: each is a job of its own.
        retry: of Slurm alone: KIND=COUNT, how often a job is submitted again after a failure of this kind.
        memory_factor: what `memory_mb` is multiplied by each time after running out of it.
    """

    cpus: int
    gpus: int
    memory_mb: int | None
    timeout_minutes: float
    logs: Path
    nodes: int = 1
    tasks_per_node: int = 1
    partition: str | None = None
    account: str | None = None
    slurm: tuple[str, ...] = ()
    array_limit: int = 0
    retry: tuple[str, ...] = ()
    memory_factor: float = 2.0


def terminate(number: int, frame: object) -> NoReturn:
    """Handle SIGTERM by leaving in order."""
    raise SystemExit(128 + number)


@contextmanager
def deaf() -> Iterator[None]:
    """Hold signals back while a job starts, so that none falls between its start and our knowing it.

    The processes started here ignore SIGINT for good: a Ctrl-C reaches the launcher alone, which ends the job in order.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending: list[int] = []
    terminated = signal.signal(signal.SIGTERM, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, terminated)
    if pending:
        os.kill(os.getpid(), pending[0])


class Tail:
    """Copies a growing log line by line; holds back the stage's one-line error."""

    def __init__(self, path: Path, target: Any, stage: str) -> None:
        self.path, self.target, self.prefix = path, target, f"sama {stage}: "
        self.held: list[str] = []
        self._read, self._rest = 0, b""

    def copy(self, last: bool) -> None:
        """Copy what is new; with `last`, an unfinished line too."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        self._read += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        if last and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            if line.startswith(self.prefix):
                self.held.append(line)
            else:
                print(line, file=self.target, flush=True)


def tell(line: str) -> None:
    """One line of the launcher's own."""
    print(f"sama launch: {line}", file=sys.stderr, flush=True)
