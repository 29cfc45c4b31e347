"""Several processes that run one stage together, as torchrun starts them (`RANK` and `WORLD_SIZE` in the environment).

A stage that knows nothing of them runs in the first alone. One that shares its work joins them; in the end the first
process writes, and the others leave (`Handed`).
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sama.errors import SamaError

if TYPE_CHECKING:
    import torch
    import torch.distributed as dist

PATIENCE = timedelta(days=7)  # nobody waits for the dead: torchrun and srun end the others when a process fails
POLL_SECONDS = 0.05


class Handed(Exception):  # noqa: N818  nothing is wrong
    """This process has given its part to the first one, and has nothing left to do."""


@dataclass(frozen=True)
class Processes:
    """This process, `rank` of `world_size`; alone where torchrun did not start it."""

    rank: int = 0
    world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads what needs no sharing, and that writes."""
        return self.rank == 0

    @property
    def logs(self) -> bool:
        """Whether this process is to say how far it is: the first, and others whose log nobody else writes to."""
        return self.first or not sys.stderr.isatty()

    def named(self, what: str) -> str:
        """`what`, of which process if it is not the first."""
        return what if self.first else f"{what}, process {self.rank}"

    def only_first(self) -> None:
        """What follows is for the first process.

        Raises:
            Handed: this is another.
        """
        if not self.first:
            raise Handed

    @contextmanager
    def joined(self, device: "torch.device") -> Iterator[None]:
        """Within it they can gather: by gloo, beside it nccl for GPUs, each process on a GPU of its own.

        A process group that is there already is used, and left as it is.
        """
        if self.world_size == 1:
            yield
            return
        import torch
        import torch.distributed as dist

        local = int(os.environ.get("LOCAL_RANK", self.rank))
        if device.type == "cuda":
            if local >= torch.cuda.device_count():
                raise SamaError(f"process {self.rank}: expected a GPU of its own, got {torch.cuda.device_count()} here")
            torch.cuda.set_device(local)
        ours = not dist.is_initialized()
        if ours:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
            where = f"{socket.gethostname()}, on " + (f"GPU {local}" if device.type == "cuda" else "the processor")
            print(f"process {self.rank} of {self.world_size}: joined at {where}", file=sys.stderr, flush=True)
        handed: Handed | None = None
        try:
            yield
        except Handed as done:
            handed = done
        # not after an error: the others wait for this process, and are ended by what started them
        self._meet()  # nobody leaves while another still listens to it
        if ours:
            dist.destroy_process_group()
        if handed:
            raise handed

    def gather(self, value: Any) -> list[Any]:
        """In the first process: what each process gives, by rank. To be called by all, within `joined`.

        Raises:
            Handed: in every other process.
        """
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        self._meet()
        values: list[Any] | None = [None] * self.world_size if self.first else None
        dist.gather_object(value, values)
        if values is None:
            raise Handed
        return values

    def exchange(self, value: Any) -> list[Any]:
        """In every process: what each process gives, by rank. To be called by all, within `joined`."""
        values = [value] * self.world_size
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_gather_object(values, value)
        return values

    def group(self) -> "dist.ProcessGroup | None":
        """That of all of them, within `joined`; None: this process is alone."""
        if self.world_size == 1:
            return None
        import torch.distributed as dist

        return dist.group.WORLD

    def share(self, name: str, micro_batches: int) -> int:
        """How many of a step's micro-batches each process takes.

        Raises:
            SamaError: they cannot be shared evenly; `name` is what the configuration calls their number.
        """
        if micro_batches % self.world_size:
            raise SamaError(
                f"{name}: {micro_batches} micro-batches a step cannot be shared by {self.world_size} processes,"
                f" expected a multiple of {self.world_size} (or nodes × tasks_per_node that divide {micro_batches})"
            )
        return micro_batches // self.world_size

    def _meet(self) -> None:
        """Return when all are here; meanwhile this process answers signals, which a collective would hold back."""
        import torch
        import torch.distributed as dist

        work = dist.all_reduce(torch.zeros(1), async_op=True)
        while work is not None and not work.is_completed():
            time.sleep(POLL_SECONDS)


def processes() -> Processes:
    """Those of this stage.

    Raises:
        SamaError: the environment names no such process.
    """
    given = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if not all(given):
        return Processes()
    try:
        rank, world_size = map(int, given)
    except ValueError as error:
        raise SamaError(f"RANK and WORLD_SIZE: expected two numbers, as torchrun sets them, got {given}") from error
    if not 0 <= rank < world_size:
        raise SamaError(f"RANK: expected 0..{world_size - 1}, got {rank}")
    return Processes(rank, world_size)
