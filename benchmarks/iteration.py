"""A meta iteration of every method, and as many steps of plain training: what `benchmarks.throughput` measures."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import flops
from benchmarks.memory import size
from benchmarks.shapes import SHAPES, Optimizer, Shape, reweighting
from sama.hypergradient.evaluation import differentiable_kernels

PLAIN, PLAIN_MATH = "plain", "plain, math attention"
LEFT_OUT = ("darts, one-sided", "darts, forward mode", "itd, 3 steps")
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    PLAIN: ("plain", {}),
    PLAIN_MATH: ("plain", {}),
    **{label: value for label, value in flops.METHODS.items() if label not in LEFT_OUT},
}
"""Label -> method and its options; `exact` takes a Hessian product a parameter and is left out."""
OPTIMIZERS: dict[str, Optimizer] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-5, fused=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, fused=True),
}


@dataclass(frozen=True)
class Cell:
    """Where methods are compared: a shape, examples a batch, tokens or pixels, base steps a meta step."""

    shape: str
    examples: int
    length: int
    unroll: int


@dataclass(frozen=True)
class Setting:
    """What all cells share: a name of `OPTIMIZERS`, cpu or cuda, dropout of the texts' hidden layers."""

    optimizer: str = "AdamW"
    device: str = "cpu"
    dropout: float = 0.0


def attention(label: str, shape: Shape) -> str:
    """Which attention a method's passes take: the fused kernels have neither second derivatives nor tangents, so that
    meta steps with either take the math kernel, and base steps the fused one.
    """
    if not shape.vocabulary:
        return "none"
    method, options = METHODS[label]
    if method == "plain":
        return "fused" if label == PLAIN else "math"
    second_order = method in ("neumann", "cg", "itd") or options.get("difference") == "exact"
    return "fused + math" if second_order else "fused"


class Iteration:
    """One meta iteration of a method, in a state of its own; plain training takes as many base steps."""

    def __init__(self, label: str, cell: Cell, setting: Setting) -> None:
        torch.manual_seed(0)
        shape, optimizer = SHAPES[cell.shape], OPTIMIZERS[setting.optimizer]
        model = shape.build("sdpa", setting.dropout).to(setting.device)
        self.batch, self.cell = shape.batch(cell.examples, cell.length, setting.device), cell
        method, options = METHODS[label]
        self.parameters = sum(p.numel() for p in model.parameters())
        self.held: list[Any] = [list(model.parameters()), list(model.buffers()), vars(self.batch)]
        if method == "plain":
            self.optimizer = optimizer(model.parameters())
            kernels = nullcontext if label == PLAIN else differentiable_kernels
            self._step: Callable[[], Any] = lambda: plain_step(model, self.batch, self.optimizer, kernels)
        else:
            loop = reweighting(model, self.batch, optimizer, method=method, options=options, unroll_steps=cell.unroll)
            loop.step_count = cell.unroll - 1  # the warm-up is one base step and a meta step
            self.optimizer, self._step = loop.base_optimizer, loop.step
            self.held.append(list(loop.meta.parameters()))

    def warm_up(self) -> None:
        """Make the states of the optimizers, and whatever kernels keep."""
        self._step()

    def __call__(self) -> None:
        for _ in range(self.cell.unroll):
            self._step()

    @property
    def resident(self) -> int:
        """Bytes that live between iterations: parameters, buffers, states of the base optimizer, the batch."""
        return size([self.held, [dict(state) for state in self.optimizer.state.values()]])


def plain_step(model: nn.Module, batch: Any, optimizer: torch.optim.Optimizer, kernels: Callable[[], Any]) -> None:
    """A training step as everybody writes it; no gradient outlives it, as in a bilevel loop."""
    with kernels():
        cross_entropy(model(batch.inputs), batch.labels).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
