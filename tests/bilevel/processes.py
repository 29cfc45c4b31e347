"""Run a function in several gloo processes on this machine."""

import multiprocessing
import os
import pickle
import queue
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run(
    world_size: int,
    function: Callable[..., Any],
    folder: Path,
    *arguments: Any,
    seconds: float = 300,
    start: str = "forkserver",
) -> list[Any]:
    """What `function(*arguments)` returns in each of `world_size` processes with a default group, by rank.

    Args:
        world_size: how many processes. function: of a module that can be imported; its result is pickled.
        folder: an empty folder for the meeting point.
        seconds: time limit of them all, for a machine that is busy with other things too.
        start: "forkserver" forks them from a process that has imported torch, which takes no time; "spawn" (seconds of
            imports) gives each a hash seed of its own, so that an order taken from a set differs between them.

    Raises:
        AssertionError: a process failed (the message holds its traceback) or the time is up.
    """
    context: Any = multiprocessing.get_context(start)
    context.set_forkserver_preload(["torch.distributed.fsdp", "timm.optim", function.__module__])
    answers = context.Queue()
    processes = [
        context.Process(target=_child, args=(rank, world_size, folder / "store", answers, function, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    until = time.monotonic() + seconds
    try:
        while len(results) < world_size:
            try:
                rank, ok, value = answers.get(timeout=0.5)
            except queue.Empty:
                dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
                assert not dead, f"a process ended with {dead[0]}"
                assert time.monotonic() < until, f"not done after {seconds} s"
                continue
            assert ok, f"process {rank}:\n{value}"
            results[rank] = pickle.loads(value)
    finally:
        for process in processes:
            process.join(timeout=0 if len(results) < world_size else 10)
            if process.is_alive():
                process.kill()
                process.join()
    return [results[rank] for rank in range(world_size)]


def _child(rank: int, world_size: int, store: Path, answers: Any, function: Callable[..., Any], arguments: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
        result = pickle.dumps(function(*arguments))  # else tensors go by shared memory of a process that has left
        answers.put((rank, True, result))
        dist.barrier()  # nobody leaves while another still talks to it
        dist.destroy_process_group()
    except BaseException:
        answers.put((rank, False, traceback.format_exc()))
        raise
