"""Several processes: examples a second, memory and bytes moved, of plain training and of SAMA.

`curve`: 1, 2 and 4 processes, at a fixed batch of all of them and at a fixed batch of each. `bytes`: what a base step
and a meta step hand to collectives, as the base model and the meta network grow; the meta step's is the difference of a
step with and one without it. Plain training is the same loop without meta steps. Processes are gloo's on the cores of
this machine, one thread each, or, with `--device cuda`, nccl's, as many as there are GPUs. With more processes than
cores the curve is one of a shared machine: it shows what the processes add, not how training would scale.

`python -m benchmarks.scaling OUT.json` writes the rows; `--quick` takes fewer repeats.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import arguments
from benchmarks.memory import peak_of, size
from benchmarks.processes import Traffic, run
from benchmarks.timing import interleaved, quartiles, ratios
from benchmarks.workload import Shape, make_loop, parameter_bytes
from sama.bilevel.loop import BilevelLoop
from sama.errors import SamaError
from sama.files import write_json

Row = dict[str, Any]
KINDS = {"plain": 10**9, "sama": 1}
"""Name -> base steps before a meta step."""
PROCESSES = (1, 2, 4)
WIDTHS, META_WIDTHS = (32, 64, 128, 256), (32, 256, 2048)
CPU = {"shape": Shape(width=128), "all": 32, "each": 8, "repeats": 7, "steps": 2}
CUDA = {
    "shape": Shape(width=768, layers=12, heads=12, tokens=128, vocabulary=30522),
    "all": 64,
    "each": 16,
    "repeats": 7,
    "steps": 10,
}


def cells(worlds: Sequence[int], every: int, each: int) -> list[tuple[str, int, int]]:
    """(batch, processes, examples a process) of the two curves."""
    return [("all", w, every // w) for w in worlds] + [("each", w, each) for w in worlds]


def groups(worlds: Sequence[int]) -> dict[int, dist.ProcessGroup | None]:
    """Processes -> the group of the first so many; called in every process."""
    return {w: dist.new_group(list(range(w))) if w > 1 else None for w in worlds}  # type: ignore[misc]


def peak(loop: BilevelLoop, device: str) -> int:
    """Most bytes of tensors at one moment of a step, with those that live between steps."""
    kept = [list(module.parameters()) for module in (loop.base, loop.meta)]
    states = [dict(s) for o in (loop.base_optimizer, loop.meta_optimizer) for s in o.state.values()]
    return size([kept, states]) + peak_of(loop.step, device)


def step_bytes(shape: Shape, group: dist.ProcessGroup) -> tuple[int, int]:
    """Bytes that one process hands to collectives in a base step, and what a meta step adds."""
    loop = make_loop(shape, 2, unroll_steps=2, group=group)
    found = []
    for _ in range(2):
        with Traffic() as traffic:
            loop.step()
        found.append(traffic.total())
    return found[0], found[1] - found[0]


def measure(shape: Shape, wanted: Sequence[tuple[int, int]], repeats: int, steps: int, device: str) -> dict:
    """In each process: (processes, examples a process, kind) -> seconds a step of each round, and peak bytes."""
    known, rank = groups(sorted({w for w, _ in wanted})), dist.get_rank()
    loops = {
        (w, n, kind): make_loop(shape, n, unroll_steps=unroll, group=known[w], device=device)
        for (w, n), (kind, unroll) in product(wanted, KINDS.items())
        if rank < w
    }

    def turn(key: tuple[int, int, str]) -> None:
        if key in loops:
            loops[key].step()

    keys = [(w, n, kind) for (w, n), kind in product(wanted, KINDS)]
    times = interleaved(
        {str(key): lambda key=key: turn(key) for key in keys},
        repeats=repeats,
        calls=steps,
        device=device,
        before=dist.barrier,
    )
    found = {}
    for key in keys:
        if key in loops:
            found[key] = (times[str(key)], peak(loops[key], device))
        dist.barrier()
    return found


def curve(settings: Mapping[str, Any], worlds: Sequence[int], backend: str, device: str) -> list[Row]:
    """Rows of the two curves, a step each: `examples` and `peak_bytes` a process, the rest of all of them.

    Ratios to plain training are of the same round.
    """
    shape, every = settings["shape"], cells(worlds, settings["all"], settings["each"])
    wanted = list(dict.fromkeys((w, n) for _, w, n in every))
    found = run(max(worlds), measure, shape, wanted, settings["repeats"], settings["steps"], device, backend=backend)
    rows = []
    for (batch, w, n), kind in product(every, KINDS):
        times = found[0][w, n, kind][0]
        rows.append(
            {"part": "curve", "batch": batch, "processes": w, "examples": n, "method": kind}
            | quartiles("seconds", times)
            | {"samples_per_second": w * n / median(times)}
            | quartiles("time_ratio", ratios(times, found[0][w, n, "plain"][0]))
            | {"peak_bytes": max(found[rank][w, n, kind][1] for rank in range(w))}
        )
    return rows


def count(shapes: Sequence[Shape]) -> list[tuple[int, int]]:
    """In each process: `step_bytes` of each shape."""
    group = dist.group.WORLD
    if group is None:
        raise SamaError("bytes are counted in a process group: run this by benchmarks.processes.run")
    return [step_bytes(shape, group) for shape in shapes]


def moved(shapes: Sequence[Shape], processes: int) -> list[Row]:
    """Rows of the bytes that a step moves; they are the same on any device, and are counted on the CPU."""
    found = run(processes, count, shapes)[0]
    rows = []
    for shape, (base, meta) in zip(shapes, found, strict=True):
        loop = make_loop(shape, 1)
        rows.append(
            {
                "part": "bytes",
                "processes": processes,
                "width": shape.width,
                "meta_width": shape.meta_width,
                "base_parameter_bytes": parameter_bytes(loop.base),
                "meta_parameter_bytes": parameter_bytes(loop.meta),
                "base_step_bytes": base,
                "meta_step_bytes": meta,
            }
        )
    return rows


def sweep() -> list[Shape]:
    """Base models of growing width with one meta network, then one base model with growing meta networks."""
    small = Shape(width=WIDTHS[0])
    return [replace(small, width=width) for width in WIDTHS] + [
        replace(small, meta_width=width) for width in META_WIDTHS if width != small.meta_width
    ]


def worlds_on(device: str) -> list[int]:
    """1, 2 and 4 processes; on CUDA as many as have a GPU each."""
    most = torch.cuda.device_count() if device == "cuda" else PROCESSES[-1]
    if most < 1:
        raise SamaError("--device cuda: no GPU was found here")
    return [w for w in PROCESSES if w <= most]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("out", type=arguments.output, help="JSON file to write")
    parser.add_argument("--device", type=arguments.device, choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    given = parser.parse_args(words)
    settings = dict(CUDA if given.device == "cuda" else CPU)
    if given.quick:
        settings |= {"repeats": 3, "steps": 1}
    worlds, backend = worlds_on(given.device), "nccl" if given.device == "cuda" else "gloo"
    rows = curve(settings, worlds, backend, given.device) + moved(sweep(), 2)
    from benchmarks.record import envelope

    command = shlex.join(["python", "-m", "benchmarks.scaling", *words])
    told = settings | {"shape": asdict(settings["shape"]), "backend": backend, "device": given.device}
    write_json(given.out, envelope("scaling", command, told, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
