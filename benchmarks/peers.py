"""SAMA and other ways to a hypergradient (`benchmarks.peer_methods`) on the same workload in the same run.

All take one step of SGD on the weighted training loss and differentiate the meta loss behind it by the meta network's
parameters, but for SAMA, which does it from first-order passes. Attention runs with its math kernel while a second
derivative is taken, because the fused ones have none. `difference` and `cosine` compare a peer's hypergradients with
those of our itd, in float64 on a small shape. A peer that is not installed is a row that says so: `envs/peers.txt` has
them. `peak_bytes`: parameters, and the most that is alive above them.

`python -m benchmarks.peers OUT.json [--peer module:function]`; `--quick` takes fewer repeats.
"""

import argparse
import importlib.metadata
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import arguments
from benchmarks.peer_methods import PEERS, Iteration, Peer, external, make_task, ours
from benchmarks.timing import interleaved, quartiles, ratios
from benchmarks.workload import Shape, modules, parameter_bytes
from sama.errors import SamaError
from sama.files import write_json

Row = dict[str, Any]
SETTINGS = {"shape": Shape(width=128), "examples": 16, "repeats": 7, "calls": 2}
CUDA = {
    "shape": Shape(width=768, layers=12, heads=12, tokens=128, vocabulary=30522),
    "examples": 32,
    "repeats": 7,
    "calls": 5,
}
EXACT = Shape(width=16, layers=1, tokens=8, vocabulary=50)
"""Where the hypergradients are compared, in float64."""


def checked(name: str, peer: Peer, device: str = "cpu") -> dict[str, float | None]:
    """How far the hypergradients of two iterations are from those of `itd` with one step, in float64, on a small shape.

    The second one is at the parameters that the first has left. `difference`: 2-norm of the difference over itd's.
    `cosine`: of the two.

    Raises:
        SamaError: the peer returns something else than the hypergradient by name.
    """
    if name == "plain training":
        return {"difference": None, "cosine": None}
    own, reference = (make_task(EXACT, 8, device=device, dtype=torch.float64) for _ in range(2))
    iterate, truth = peer(own), ours("itd", inner_steps=1)(reference)
    shapes = {n: p.shape for n, p in reference.network.named_parameters()}
    found = []
    for call in (iterate, iterate, truth, truth):
        values = call()
        if not isinstance(values, Mapping) or {n: v.shape for n, v in values.items()} != shapes:
            raise SamaError(f"{name}: expected the hypergradient, a tensor shaped like each of {', '.join(shapes)}")
        found += [values[n].detach().flatten() for n in shapes]
    x, y = torch.cat(found).chunk(2)
    return {"difference": float((x - y).norm() / y.norm()), "cosine": float(torch.cosine_similarity(x, y, dim=0))}


def measured(settings: Mapping[str, Any], peers: Mapping[str, tuple[Peer, str | None]], device: str) -> list[Row]:
    """A row a peer; ratios are of the same round."""
    from benchmarks.memory import peak_of

    rows: dict[str, Row] = {}
    ready: dict[str, Iteration] = {}
    for name, (peer, package) in peers.items():
        rows[name] = {"peer": name, "status": "measured", "version": _version(package)}
        try:
            rows[name] |= checked(name, peer, device)
            ready[name] = peer(make_task(settings["shape"], settings["examples"], device=device))
            ready[name]()
        except ModuleNotFoundError as error:
            rows[name]["status"] = f"not installed: {error.name}"
        except Exception as error:  # whatever a library of others says; the others are measured all the same
            rows[name]["status"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ready.pop(name, None)
    resident = sum(parameter_bytes(module) for module in modules(settings["shape"]))
    times = interleaved(ready, repeats=settings["repeats"], calls=settings["calls"], device=device)
    for name, values in times.items():
        rows[name] |= quartiles("seconds", values)
        for other, column in (("plain training", "time_ratio"), ("sama", "ratio_to_sama")):
            if other in times:
                rows[name] |= quartiles(column, ratios(values, times[other]))
        rows[name]["peak_bytes"] = resident + peak_of(ready[name], device)
    return list(rows.values())


def _version(package: str | None) -> str | None:
    try:
        return None if package is None else importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("out", type=arguments.output, help="JSON file to write")
    parser.add_argument("--device", type=arguments.device, choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peer", action="append", default=[], help="module:function of your own; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    given = parser.parse_args(words)
    settings = dict(CUDA if given.device == "cuda" else SETTINGS)
    if given.quick:
        settings |= {"repeats": 3, "calls": 1}
    try:
        more = {reference: (external(reference), None) for reference in given.peer}
    except SamaError as error:
        sys.exit(f"peers: {error}")
    if given.device == "cpu":
        torch.set_num_threads(1)
    rows = measured(settings, PEERS | more, given.device)
    from benchmarks.record import envelope

    command = shlex.join(["python", "-m", "benchmarks.peers", *words])
    told = settings | {"shape": asdict(settings["shape"]), "device": given.device, "threads": torch.get_num_threads()}
    write_json(given.out, envelope("peers", command, told, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
