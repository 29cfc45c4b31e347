"""Run a function in several processes of this machine that form a group, each in a network namespace if wanted."""

import ctypes
import errno
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sama import guard
from sama.errors import SamaError

PRELOADED = ("benchmarks.workload", "torch._dynamo")  # what optimizers import when the first of them is made
NEW_NETWORK = 0x40000000  # CLONE_NEWNET, of linux/sched.h


def run(
    world_size: int,
    function: Callable[..., Any],
    *arguments: Any,
    backend: str = "gloo",
    namespaces: Sequence[str] = (),
    interface: str = "lo",
    seconds: float = 600,
) -> list[Any]:
    """What `function(*arguments)` returns in each of `world_size` processes with a default group, by rank.

    They end with this process, also when it is killed. A process has one thread on the CPU; with `nccl` it has the
    GPU of its rank.

    Args:
        world_size: how many. function: of a module that can be imported; its result is pickled.
        backend: gloo or nccl. interface: of the network, for gloo.
        namespaces: names of `ip netns`, one a process; none: this process's own network.
        seconds: time limit of them all.

    Raises:
        SamaError: the time is up.
        torch.multiprocessing.ProcessRaisedException: one of them raised; has its traceback.
    """
    module = sys.modules[function.__module__]  # of a `python -m` it is __main__, which the server would not import
    preloaded = [*PRELOADED, module.__spec__.name if module.__spec__ else module.__name__]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    with tempfile.TemporaryDirectory() as folder:
        place = (Path(folder), guard.own_environment(), backend, tuple(namespaces), interface, seconds)
        context: Any = start_processes(
            _child, (world_size, place, function, arguments), world_size, join=False, start_method="forkserver"
        )
        until = time.monotonic() + seconds
        try:
            while not context.join(timeout=1):
                if time.monotonic() > until:
                    raise SamaError(f"{world_size} processes of {function.__name__}: not done after {seconds:g} s")
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
                process.join()
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(world_size)]


def _child(rank: int, world_size: int, where: tuple, function: Callable[..., Any], arguments: tuple) -> None:
    folder, owner, backend, namespaces, interface, seconds = where
    if namespaces:
        enter(namespaces[rank])
    os.environ.update(owner)
    guard.watch_owner(orderly=False)  # the parent is a server, which lives as long as its children
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    torch.set_num_threads(1)
    device = torch.device("cuda", rank) if backend == "nccl" else None
    if device is not None:
        torch.cuda.set_device(device)
    place = {"init_method": f"file://{folder / 'store'}", "rank": rank, "world_size": world_size}
    dist.init_process_group(backend, **place, timeout=timedelta(seconds=seconds), device_id=device)
    (folder / str(rank)).write_bytes(pickle.dumps(function(*arguments)))
    dist.barrier()  # nobody leaves while another still talks to it
    dist.destroy_process_group()


def enter(namespace: str) -> None:
    """Take this process, which has one thread yet, into the network namespace of that name."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (Path("/run/netns") / namespace).open() as handle:
        if libc.setns(handle.fileno(), NEW_NETWORK) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"setns: {errno.errorcode.get(code, code)}", namespace)


class Traffic(TorchDispatchMode):
    """Counts the bytes that this process hands to collectives inside of the block, by the collective's name.

    It is what is reduced or sent, not what a link carries: a ring of R processes carries 2 (R − 1)/R of it a process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            name = func._opname.removesuffix("_")
            size = sum(t.numel() * t.element_size() for t in tree_leaves(args[0]) if isinstance(t, torch.Tensor))
            self.bytes[name] = self.bytes.get(name, 0) + size
        return func(*args, **(kwargs or {}))

    def total(self) -> int:
        """Bytes of all collectives."""
        return sum(self.bytes.values())
