"""A slow link between two processes: one overlapped reduction a meta step against one at each of its three passes.

Each process has a network namespace, and one shaped link joins the two. Compared are, with one base step a meta step:

- `plain`: the base step alone, whose reduction of |θ| values all of them share;
- `overlapped`: what `BilevelLoop` does, |λ| values once, begun while the last backward pass runs;
- `afterwards`: |λ| values once, begun when the last backward pass has ended;
- `each_pass`: ∂L_meta/∂θ, |θ| values, overlapped with its backward pass, then each of the two perturbed gradients by λ.

`each_pass` is the least that a reduction at each pass can move: a wrapper that reduces whatever a backward pass yields
moves |θ| values three times. It takes v from all processes' examples where SAMA takes each process's own, so the two
hypergradients are the same only where v is (`tests/benchmarks/test_slow_link.py`).

As root: `python -m benchmarks.slow_link OUT.json`; `--quick` takes fewer repeats.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import arguments, namespaces
from benchmarks.processes import Traffic, run
from benchmarks.timing import interleaved, quartiles, ratios
from benchmarks.workload import Shape, make_loop, parameter_bytes
from sama.bilevel.distributed import Mean
from sama.bilevel.loop import BilevelLoop
from sama.errors import SamaError
from sama.files import write_json
from sama.hypergradient import Hypergradient, Method
from sama.hypergradient.difference import step_along
from sama.hypergradient.evaluation import detached, gradients, mean_loss, moved, untouched
from sama.hypergradient.program import Batch, Params, Program

Row = dict[str, Any]
CANDIDATES = ("plain", "overlapped", "afterwards", "each_pass")
SETTINGS = {"shape": Shape(width=128), "examples": 16, "megabits": (30, 100, 300, 1000, None), "repeats": 9, "steps": 1}
QUICK = {"megabits": (100, 1000), "repeats": 5}


class Opaque:
    """A program whose weighting form is hidden, so that all candidates take the same two perturbed passes."""

    def __init__(self, program: Program) -> None:
        self.base_loss, self.meta_loss, self.buffers = program.base_loss, program.meta_loss, program.buffers


@dataclass(frozen=True)
class Afterwards(Method):
    """The method of that name; it tells nobody what arrives before it ends."""

    def takes(self, context: str) -> bool:
        return context != "arrived" and super().takes(context)


@dataclass(frozen=True)
class EachPass(Afterwards):
    """SAMA with the central difference and a mean over the processes at each pass; the last one is the loop's."""

    group: dist.ProcessGroup

    def __call__(
        self, program: Program, base: Params, meta: Params, batch: Batch, meta_batch: Batch, **context: Any
    ) -> Hypergradient:
        theta, lam = detached(base, requires_grad=True), detached(meta, requires_grad=True)
        every, of_meta = Mean(theta | lam, self.group), Mean(lam, self.group)
        with untouched(program) as random_state:
            loss = mean_loss(lambda part: program.meta_loss(theta, lam, part), meta_batch)
            gradients(loss, theta | lam, arrived=every.put)
            mean = every.take()
            direct = {name: mean.pop(name) for name in lam}
            with torch.no_grad():
                v = context["adapt"](mean)
                step = step_along(v, context["alpha"], program)

            def perturbed(size: Tensor) -> dict[str, Tensor]:
                random_state.restore()
                there = moved(theta, v, size)
                return gradients(mean_loss(lambda part: program.base_loss(there, lam, part), batch), lam)

            for name, value in perturbed(step.size).items():
                of_meta.put(name, value)
            plus = of_meta.take()
            minus = perturbed(-step.size)
        gradient = {name: direct[name] - 0.5 * step.inverse * (plus[name] - minus[name]) for name in lam}
        return Hypergradient(gradient, loss.detach(), step.epsilon)


def make(name: str, shape: Shape, examples: int, group: dist.ProcessGroup, **options: Any) -> BilevelLoop:
    """The loop of a candidate."""
    unroll_steps = 10**9 if name == "plain" else 1
    loop = make_loop(shape, examples, unroll_steps=unroll_steps, group=group, **options)
    loop.program = Opaque(loop.program)
    if name == "afterwards":
        loop.method = Afterwards(loop.method.name, loop.method.knobs)
    if name == "each_pass":
        loop.method = EachPass(loop.method.name, loop.method.knobs, group)
    return loop


def measure(settings: Mapping[str, Any], names: list[str]) -> list[dict[str, tuple[list[float], int, int]]]:
    """In each process, for each rate: candidate -> seconds a step of each round, and `moved_by` of a step."""
    group = dist.group.WORLD
    if group is None:
        raise SamaError("a link is measured in a process group: run this by benchmarks.processes.run")
    loops = {name: make(name, settings["shape"], settings["examples"], group) for name in CANDIDATES}
    steps = {name: loop.step for name, loop in loops.items()}
    found = []
    for megabits in settings["megabits"]:
        dist.barrier()
        if group.rank() == 0:
            namespaces.shape(names, megabits)
        times = interleaved(steps, repeats=settings["repeats"], calls=settings["steps"], before=dist.barrier)
        found.append({name: (times[name], *moved_by(loop, names[group.rank()])) for name, loop in loops.items()})
    return found


def moved_by(loop: BilevelLoop, name: str) -> tuple[int, int]:
    """Bytes of one step: handed to collectives, and sent by this end of the link, headers included."""
    dist.barrier()
    before = namespaces.sent(name)
    with Traffic() as traffic:
        loop.step()
    return traffic.total(), namespaces.sent(name) - before


def rows_at(megabits: float | None, found: Mapping[str, tuple[list[float], int, int]]) -> list[Row]:
    """Rows of one rate: a candidate each; ratios to `overlapped` and differences to `plain` are of the same round."""
    plain, ours = found["plain"], found["overlapped"]
    rows = []
    for name, (times, handed, carried) in found.items():
        of_ours = ratios(times, ours[0])
        added = [time - base for time, base in zip(times, plain[0], strict=True)]
        rows.append(
            {"megabits_per_second": megabits, "reduction": name}
            | quartiles("seconds", times)
            | quartiles("meta_seconds", added)
            | quartiles("time_ratio", of_ours)
            | {"time_ratio_least": min(of_ours)}
            | {"step_bytes": handed, "meta_step_bytes": handed - plain[1], "sent_bytes": carried}
        )
    return rows


def measured(settings: Mapping[str, Any]) -> list[Row]:
    """Rows of all rates, slowest first.

    Raises:
        SamaError: there are no namespaces here; says why.
    """
    why = namespaces.refusal()
    if why is not None:
        raise SamaError(why)
    with namespaces.linked() as names:
        found = run(2, measure, settings, names, namespaces=names, interface=namespaces.INTERFACE)[0]
    return [row for rate, of_rate in zip(settings["megabits"], found, strict=True) for row in rows_at(rate, of_rate)]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("out", type=arguments.output, help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="fewer rates and repeats")
    parser.add_argument("--optional", action="store_true", help="where it is refused, write why and no rows")
    given = parser.parse_args(words)
    settings = SETTINGS | (QUICK if given.quick else {})
    loop = make_loop(settings["shape"], 1)
    told = settings | {"shape": asdict(settings["shape"]), "processes": 2, "backend": "gloo"}
    told |= {"base_parameter_bytes": parameter_bytes(loop.base), "meta_parameter_bytes": parameter_bytes(loop.meta)}
    try:
        rows, told["refused"] = measured(settings), None
    except SamaError as error:
        if not given.optional:
            sys.exit(f"slow_link: {error}")
        rows, told["refused"] = [], str(error)
        print(f"slow_link: left out: {error}", file=sys.stderr)
    from benchmarks.record import envelope

    command = shlex.join(["python", "-m", "benchmarks.slow_link", *words])
    write_json(given.out, envelope("slow_link", command, told, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
