"""Floating-point operations of one base step and one meta step, method by method, in forwards of the base batch.

A weighting program with a BERT-shaped base model (4 layers, 256 wide, eager attention for all methods), counted
by torch's FlopCounterMode: `python -m benchmarks.flops` prints a markdown table.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shapes import SHAPES, reweighting

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sama": ("sama", {}),
    "sama, one-sided": ("sama", {"difference": "one_sided"}),
    "sama, forward mode": ("sama", {"difference": "exact"}),
    "sama_na": ("sama_na", {}),
    "darts": ("darts", {}),
    "darts, one-sided": ("darts", {"difference": "one_sided"}),
    "darts, forward mode": ("darts", {"difference": "exact"}),
    "neumann, 3 iterations": ("neumann", {"iterations": 3}),
    "cg, 3 iterations": ("cg", {"iterations": 3}),
    "itd, 1 step": ("itd", {"inner_steps": 1}),
    "itd, 3 steps": ("itd", {"inner_steps": 3}),
}


def make_loop(
    method: str,
    options: dict[str, Any],
    *,
    unroll_steps: int,
    examples: int = 2,
    tokens: int = 16,
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
    device: str = "cpu",
):
    torch.manual_seed(0)
    shape = SHAPES["bert_4x256"]
    model, batch = shape.build("eager", 0.1).to(device), shape.batch(examples, tokens, device)
    return reweighting(model, batch, optimizer, method=method, options=options, unroll_steps=unroll_steps)


def count(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def measure() -> dict[str, float]:
    """Operations in forwards of the base batch: `plain step`, and base step plus meta step of every method."""
    loop = make_loop("sama", {}, unroll_steps=2)
    with torch.no_grad():
        forward = count(lambda: loop.base(next(loop.batches).inputs))
    found = {"plain step": count(loop.step) / forward}
    for label, (method, options) in METHODS.items():
        found[label] = count(make_loop(method, options, unroll_steps=1).step) / forward
    return found


def main() -> None:
    print("| method, unroll 1 | forwards F of the base batch |\n|---|---|")
    for label, value in measure().items():
        print(f"| {label} | {value:.2f} F |")
    print("| exact, n base parameters | 11 F + 6n F by the same arithmetic; not run at this size |")


if __name__ == "__main__":
    main()
