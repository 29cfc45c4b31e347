"""What SAMA and its rivals cost beside plain training, measured in the same run: time, memory, operations.

A meta iteration is `unroll` base steps and one meta step, with meta batches of the base batches' size; plain training
is a loop of torch alone that takes as many steps. Samples are those of the base batches. All methods take turns, round
after round, so that whatever else the machine does meets them alike; a ratio is the median over the rounds of time
divided by the time of plain training in the same round. One of shape, batch and unroll is varied at a time, around the
first of each.

    python -m benchmarks.throughput OUT.json
    python -m benchmarks.throughput OUT.json --device cuda --shapes bert_base --examples 48 12 24 96 --unroll 1 5 10

writes the rows as JSON, with command and hardware, and prints the tables. Memory on the CPU: storages that torch
allocates, without scratch space inside of a kernel; on CUDA what the allocator says. Dropout is off unless asked for:
on a CPU its random numbers take up to a third of a forward, and are no floating-point operations.
"""

import argparse
import gc
import resource
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arguments import device, output, positive
from benchmarks.iteration import METHODS, OPTIMIZERS, PLAIN, PLAIN_MATH, Cell, Iteration, Setting, attention
from benchmarks.memory import peak_of, size
from benchmarks.record import envelope, markdown
from benchmarks.shapes import SHAPES
from benchmarks.timing import quartiles, ratios
from sama.files import write_json


@dataclass
class Found:
    """What was measured of a method: seconds a round; the rest is absent where memory ran out."""

    seconds: list[float] = field(default_factory=list)
    parameters: int = 0
    flops: int | None = None
    resident: int | None = None
    above: int | None = None


def timed(iteration: Callable[[], Any], device: str) -> float:
    """Seconds; on CUDA from the first kernel to the end of the last."""
    gc.collect()
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()  # type: ignore[call-arg]
        iteration()
        end.record()  # type: ignore[call-arg]
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    iteration()
    return time.perf_counter() - start


def out_of_memory(error: BaseException) -> bool:
    """Whether torch says that an allocation failed."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "bad_alloc" in text)
    )


class Bench:
    """Measures the methods in one cell, taking turns.

    Args:
        cell, methods, setting: what to measure.
        keep: hold the state of every method from round to round; else each turn builds it anew and warms it up.
    """

    def __init__(self, cell: Cell, methods: Sequence[str], setting: Setting, *, keep: bool) -> None:
        self.cell, self.setting, self.keep = cell, setting, keep
        self.found = {label: Found() for label in methods}
        self._kept: dict[str, Iteration] = {}

    def count(self) -> None:
        """Memory and operations of every method, each alone."""
        for label, found in self.found.items():
            try:
                iteration = self._ready(label)
                with FlopCounterMode(display=False) as counter:
                    found.above = peak_of(iteration, self.setting.device)
                found.flops, found.resident = counter.get_total_flops(), iteration.resident
                found.parameters = iteration.parameters
            except (RuntimeError, MemoryError) as error:
                self._give_up(label, error)
            finally:
                iteration = None
                self._sweep()

    def round(self) -> None:
        """Time one iteration of every method that memory sufficed for."""
        for label, found in self.found.items():
            if found.flops is None:
                continue
            try:
                iteration = self._ready(label)
                found.seconds.append(timed(iteration, self.setting.device))
            except (RuntimeError, MemoryError) as error:
                self._give_up(label, error)
            finally:
                iteration = None
                self._sweep()

    def _ready(self, label: str) -> Iteration:
        if label in self._kept:
            return self._kept[label]
        iteration = Iteration(label, self.cell, self.setting)
        iteration.warm_up()
        if self.keep:
            self._kept[label] = iteration
        return iteration

    def _give_up(self, label: str, error: BaseException) -> None:
        if not out_of_memory(error):
            raise error
        self.found[label] = Found()
        self._kept.pop(label, None)

    def _sweep(self) -> None:
        if not self.keep:
            gc.collect()
            if self.setting.device == "cuda":
                torch.cuda.empty_cache()


def measure(
    cell: Cell,
    methods: Sequence[str],
    setting: Setting,
    *,
    rounds: int = 5,
    seconds: float = 60.0,
    keep: bool = True,
) -> list[dict[str, Any]]:
    """The rows of one cell, a method each; as many rounds as `seconds` allow, 3 at least and `rounds` at most.

    Plain training with the math kernel is left out where there is no attention.
    """
    methods = [label for label in methods if attention(label, SHAPES[cell.shape]) != "none" or label != PLAIN_MATH]
    bench = Bench(cell, methods, setting, keep=keep)
    begin = time.monotonic()
    bench.count()
    for done in range(rounds):
        start = time.monotonic()
        bench.round()
        now = time.monotonic()
        if done >= 2 and now - begin + (now - start) > seconds:
            break
    return rows(cell, bench.found)


def rows(cell: Cell, found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """A row a method: absolute figures, and ratios to `plain`; where memory ran out both are None."""
    plain = found[PLAIN]
    return [row(cell, label, own, plain) for label, own in found.items()]


def row(cell: Cell, label: str, own: Found, plain: Found) -> dict[str, Any]:
    """Times are quartiles of the rounds, ratios of times quartiles of the rounds' ratios."""
    named = {**asdict(cell), "method": label, "attention": attention(label, SHAPES[cell.shape])}
    if own.flops is None or own.resident is None or own.above is None or not own.seconds:
        return {**named, "status": "out of memory", **dict.fromkeys(MEASURED)}
    values: dict[str, Any] = {
        "parameters": own.parameters,
        "rounds": len(own.seconds),
        **quartiles("seconds", own.seconds),
        "samples_per_second": cell.unroll * cell.examples / float(np.median(own.seconds)),
        "flops": own.flops,
        "resident_bytes": own.resident,
        "peak_bytes": own.resident + own.above,
    }
    if plain.flops and plain.resident is not None and plain.above is not None and plain.seconds:
        peak = plain.resident + plain.above
        values |= {
            **quartiles("time_ratio", ratios(own.seconds, plain.seconds)),
            "flops_ratio": own.flops / plain.flops,
            "memory_ratio": values["peak_bytes"] / peak,
            "copies_above_plain": (values["peak_bytes"] - peak) / (4 * own.parameters),
        }
    return {**named, "status": "ok", **dict.fromkeys(MEASURED), **values}


MEASURED = (
    "parameters",
    "rounds",
    "seconds",
    "seconds_q1",
    "seconds_q3",
    "samples_per_second",
    "flops",
    "resident_bytes",
    "peak_bytes",
    "time_ratio",
    "time_ratio_q1",
    "time_ratio_q3",
    "flops_ratio",
    "memory_ratio",
    "copies_above_plain",
)
"""Columns of a row that memory must suffice for; `copies_above_plain`: of the float32 parameters, in bytes."""


def cells(shapes: Sequence[str], examples: Sequence[int], unroll: Sequence[int], length: int | None) -> list[Cell]:
    """The first of each, then the others of each, one varied at a time."""

    def cell(shape: str, count: int, steps: int) -> Cell:
        return Cell(shape, count, length or SHAPES[shape].length, steps)

    first = shapes[0], examples[0], unroll[0]
    return [
        cell(*first),
        *(cell(first[0], first[1], steps) for steps in unroll[1:]),
        *(cell(first[0], count, first[2]) for count in examples[1:]),
        *(cell(shape, first[1], first[2]) for shape in shapes[1:]),
    ]


def fits(cell: Cell, methods: int, device: str) -> bool:
    """Whether half of the free memory holds the states of all methods at once."""
    model = SHAPES[cell.shape].build("sdpa", 0.0)
    return 4 * size(list(model.parameters())) * methods < free_memory(device) / 2


def free_memory(device: str) -> int:
    """Bytes that can still be had."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


def limit_memory() -> None:
    """Let an allocation fail where the machine has no more memory, instead of having this process killed."""
    most = psutil.Process().memory_info().rss + free_memory("cpu")
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("out", type=output, help="JSON file to write")
    made.add_argument(
        "--shapes", nargs="+", choices=SHAPES, default=["bert_4x256"], help="models (default: bert_4x256)"
    )
    made.add_argument("--examples", nargs="+", type=positive, default=[8], help="examples a batch (default: 8)")
    made.add_argument("--unroll", nargs="+", type=positive, default=[1], help="base steps a meta step (default: 1)")
    made.add_argument("--length", type=positive, help="tokens or pixels (default: the shape's own)")
    made.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all; plain is always there"
    )
    made.add_argument(
        "--optimizer", choices=OPTIMIZERS, default="AdamW", help="of the base model (default: AdamW, fused)"
    )
    made.add_argument(
        "--dropout", type=float, default=0.0, help="of a text model's hidden layers (default: 0; see above)"
    )
    made.add_argument("--device", type=device, choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    made.add_argument("--threads", type=positive, default=1, help="of torch on the CPU (default: 1)")
    made.add_argument("--rounds", type=positive, default=7, help="timed iterations a method, at most (default: 7)")
    made.add_argument("--seconds", type=float, default=60.0, help="for a cell; 3 rounds are taken anyhow (default: 60)")
    return made


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments; a length that one of the models cannot take is refused."""
    made = parser()
    given = made.parse_args(arguments)
    for name in given.shapes:
        most = SHAPES[name].longest
        if given.length and most and given.length > most:
            made.error(f"argument --length: {name} takes texts of at most {most} tokens, got {given.length}")
    return given


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    given = parse(arguments)
    torch.set_num_threads(given.threads)
    if given.device == "cpu":
        limit_memory()
    setting = Setting(given.optimizer, given.device, given.dropout)
    methods = list(dict.fromkeys([PLAIN, *given.methods]))
    found = []
    for cell in cells(given.shapes, given.examples, given.unroll, given.length):
        keep = fits(cell, len(methods), given.device)
        own = measure(cell, methods, setting, rounds=given.rounds, seconds=given.seconds, keep=keep)
        print(shown(own), flush=True)
        found += own
    settings = {**asdict(setting), "threads": given.threads, "rounds": given.rounds, "seconds": given.seconds}
    command = shlex.join(["python", "-m", "benchmarks.throughput", *arguments])
    write_json(given.out, envelope("throughput", command, settings, found))


def shown(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows of a cell as a markdown table."""
    first = found[0]
    head = f"\n{first['shape']}, {first['examples']} x {first['length']}, unroll {first['unroll']}\n"
    lines = [
        ["method", "attention", "s", "samples/s", "time / plain", "FLOPs / plain", "peak MB", "copies above plain"]
    ]
    for own in found:
        if own["status"] != "ok":
            lines.append([own["method"], own["attention"], own["status"], *[""] * 5])
            continue
        ratio, operations, copies = "", "", ""
        if own["time_ratio"] is not None:  # memory sufficed for plain training too
            ratio = "{time_ratio:.2f} ({time_ratio_q1:.2f}-{time_ratio_q3:.2f})".format_map(own)
            operations, copies = f"{own['flops_ratio']:.2f}", f"{own['copies_above_plain']:.2f}"
        numbers = [operations, f"{own['peak_bytes'] / 1e6:.1f}", copies]
        times = [f"{own['seconds']:.3g}", f"{own['samples_per_second']:.3g}"]
        lines.append([own["method"], own["attention"], *times, ratio, *numbers])
    return head + markdown(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
