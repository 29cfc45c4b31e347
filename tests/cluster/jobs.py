"""What the tests run as jobs; the jobs import it."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment, clean_env


def where_am_i() -> dict[str, Any]:
    """Names that Slurm gave to the task, and the cluster as a client sees it without any variable of Slurm's."""
    import subprocess

    seen: dict[str, Any] = {name: os.environ.get(name) for name in ("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")}
    with clean_env():
        nodes = subprocess.check_output(["sinfo", "--noheader", "--Node", "--format=%P%N"], text=True)
    seen["nodes"] = sorted(nodes.split())  # partitions come in any order
    return seen


def sum_of_ranks() -> dict[str, int]:
    """The sum of (rank + 1) over all processes, by gloo."""
    environment = TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")
    total = torch.tensor([environment.rank + 1])
    distributed.all_reduce(total)
    distributed.destroy_process_group()
    return {"rank": environment.rank, "local_rank": environment.local_rank, "sum": int(total)}


def sleep(started: Path, seconds: float) -> None:
    started.touch()
    time.sleep(seconds)


def fill(megabytes: int) -> None:
    """Hold this much memory for a minute."""
    block = b"x" * (megabytes << 20)
    time.sleep(60)
    del block


def stay(notes: Path) -> list[str]:
    """Note the signal and stay until ended; once requeued, end with the notes."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        return notes.read_text().split()

    def note(number: int, frame: object) -> None:
        with notes.open("a") as stream:
            stream.write(f"{signal.Signals(number).name}\n")

    signal.signal(signal.SIGUSR2, note)
    signal.signal(signal.SIGTERM, note)
    notes.write_text("started\n")
    time.sleep(600)
    raise AssertionError("nobody ended it")


class Resume:
    """Stays until told to go, `times`: each time submitit asks for a checkpoint and requeues it."""

    def __init__(self, started: Path, times: int, told: int = 0) -> None:
        self.started, self.times, self.told = started, times, told

    def __call__(self) -> int:
        if self.told < self.times:
            self.started.touch()
            time.sleep(600)
        return self.told

    def checkpoint(self) -> Any:
        return DelayedSubmission(Resume(self.started, self.times, self.told + 1))
