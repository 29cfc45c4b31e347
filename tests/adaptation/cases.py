"""The one table of registered optimizers, how to drive them, and what their Dᵀx is by other means."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import timm.optim
import torch
from hypothesis import strategies as st
from torch import Tensor

from sama.adaptation import Memory, adapt, remember
from sama.adaptation.registry import full_name

NAMES = ["a", "b"]
SHAPES = [(3, 2), (4,)]


def chosen(**values: list) -> st.SearchStrategy[dict[str, Any]]:
    """Options, each from its list."""
    return st.fixed_dictionaries({name: st.sampled_from(list_) for name, list_ in values.items()})


SWITCHES = {"maximize": [False, True], "weight_decay": [0.0, 0.3]}
MOMENTS = {"betas": [(0.9, 0.999), (0.7, 0.9), (0.0, 0.6), (0.8, 0.95)], "eps": [1e-8, 1e-3], **SWITCHES}
RATES = {"lr": [0.05, 0.7, torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)]}
DECOUPLED = {"decoupled_weight_decay": [False, True]}

OPTIONS: dict[type[torch.optim.Optimizer], st.SearchStrategy[dict[str, Any]]] = {
    torch.optim.SGD: st.one_of(
        chosen(**RATES, **SWITCHES, momentum=[0.0, 0.8], dampening=[0.0, 0.4], nesterov=[False]),
        chosen(**RATES, **SWITCHES, momentum=[0.8, 0.3], dampening=[0.0], nesterov=[True]),
    ),
    torch.optim.Adam: chosen(**RATES, **MOMENTS, **DECOUPLED, amsgrad=[False, True]),
    torch.optim.AdamW: chosen(**RATES, **MOMENTS, amsgrad=[False, True]),
    torch.optim.NAdam: chosen(**RATES, **MOMENTS, **DECOUPLED, momentum_decay=[4e-3, 0.5]),
    torch.optim.RAdam: chosen(**RATES, **MOMENTS, **DECOUPLED),
    torch.optim.Adamax: chosen(**RATES, **MOMENTS),
    torch.optim.Adagrad: chosen(
        lr=[0.05, 0.7], **SWITCHES, lr_decay=[0.0, 0.1], eps=[1e-10, 1e-3], initial_accumulator_value=[0.0, 0.2]
    ),
    torch.optim.Adadelta: chosen(**RATES, **SWITCHES, rho=[0.9, 0.5], eps=[1e-6, 1e-2]),
    torch.optim.RMSprop: chosen(
        **RATES, **SWITCHES, alpha=[0.99, 0.6], eps=[1e-8, 1e-3], momentum=[0.0, 0.7], centered=[False, True]
    ),
}
"""Options of the optimizers whose closed form is an element-wise one, for property tests."""

ALSO_DIFFERENTIABLE: dict[type[torch.optim.Optimizer], st.SearchStrategy[dict[str, Any]]] = {
    torch.optim.ASGD: chosen(**RATES, **SWITCHES, lambd=[1e-4, 0.1], alpha=[0.75, 0.3], t0=[1e6, 1.0]),
    torch.optim.Rprop: chosen(lr=[0.05, 0.7], maximize=[False, True], etas=[(0.5, 1.2)]),
}


@dataclass(frozen=True)
class Entry:
    """A registered optimizer: its class, options of two groups, shapes of their parameters."""

    kind: type[torch.optim.Optimizer]
    options: list[dict[str, Any]]
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: SHAPES)


LAMB = {"max_grad_norm": None}
MATRICES = [(5, 4), (4, 6)]
TABLE: dict[str, list[Entry]] = {
    "torch.optim.sgd.SGD": [Entry(torch.optim.SGD, [{"momentum": 0.8, "nesterov": True}, {"lr": 0.3}])],
    "torch.optim.adam.Adam": [Entry(torch.optim.Adam, [{"amsgrad": True}, {"lr": 0.3, "weight_decay": 0.2}])],
    "torch.optim.adamw.AdamW": [Entry(torch.optim.AdamW, [{"maximize": True}, {"betas": (0.5, 0.7)}])],
    "torch.optim.nadam.NAdam": [Entry(torch.optim.NAdam, [{"weight_decay": 0.2}, {"lr": 0.3}])],
    "torch.optim.radam.RAdam": [Entry(torch.optim.RAdam, [{"betas": (0.9, 0.5)}, {"weight_decay": 0.2}])],
    "torch.optim.adamax.Adamax": [Entry(torch.optim.Adamax, [{"betas": (0.9, 0.3)}, {"weight_decay": 0.2}])],
    "torch.optim.adagrad.Adagrad": [Entry(torch.optim.Adagrad, [{"lr_decay": 0.1}, {"weight_decay": 0.2}])],
    "torch.optim.adadelta.Adadelta": [Entry(torch.optim.Adadelta, [{"rho": 0.6}, {"weight_decay": 0.2}])],
    "torch.optim.rmsprop.RMSprop": [
        Entry(torch.optim.RMSprop, [{"centered": True, "momentum": 0.5}, {"weight_decay": 0.2}])
    ],
    "torch.optim.asgd.ASGD": [Entry(torch.optim.ASGD, [{"lambd": 0.1}, {"weight_decay": 0.2}])],
    "torch.optim.rprop.Rprop": [Entry(torch.optim.Rprop, [{}, {"lr": 0.3}])],
    full_name(torch.optim.Muon): [
        Entry(torch.optim.Muon, [{"nesterov": True}, {"lr": 0.3, "momentum": 0.7}], MATRICES),
        Entry(
            torch.optim.Muon,
            [
                {"nesterov": False, "ns_steps": 3},
                {"adjust_lr_fn": "match_rms_adamw", "ns_coefficients": (2.0, -1.5, 0.5)},
            ],
            MATRICES,
        ),
        Entry(torch.optim.Muon, [{}, {"adjust_lr_fn": "spectral_unclamped"}], MATRICES),
    ],
    "timm.optim.lion.Lion": [Entry(timm.optim.Lion, [{}, {"lr": 0.3}])],
    "timm.optim.lamb.Lamb": [
        Entry(timm.optim.Lamb, [{**LAMB, "weight_decay": 0.3}, {"lr": 0.3, "trust_clip": True}]),
        Entry(timm.optim.Lamb, [{**LAMB, "weight_decay": 0.0, "always_adapt": True}, {"caution": True}]),
        Entry(
            timm.optim.Lamb,
            [
                {**LAMB, "weight_decay": 0.3, "decoupled_decay": True},
                {"corrected_weight_decay": True, "max_lr_snapshot": 0.5, "bias_correction": False},
            ],
        ),
        Entry(timm.optim.Lamb, [{**LAMB, "weight_decay": 0.0}, {"grad_averaging": False, "weight_decay": 0.2}]),
    ],
    "timm.optim.lars.Lars": [
        Entry(
            timm.optim.Lars, [{"weight_decay": 0.2, "trust_coeff": 0.1}, {"lr": 0.3, "momentum": 0.7, "dampening": 0.2}]
        ),
        Entry(
            timm.optim.Lars,
            [
                {"always_adapt": True, "trust_clip": True, "trust_coeff": 0.02},
                {"trust_coeff": 90.0, "momentum": 0.5, "always_adapt": True, "trust_clip": True},
            ],
        ),
        Entry(timm.optim.Lars, [{"momentum": 0.7, "nesterov": True}, {"weight_decay": 0.2}]),
    ],
    "timm.optim.muon.Muon": [
        Entry(timm.optim.Muon, [{}, {"lr": 0.3, "nesterov": True, "ns_steps": 7}], [(5, 4), (4, 6)]),
        Entry(timm.optim.Muon, [{"conv_mode": "batched"}, {"scale_eps": True, "eps": 0.1}], [(4, 4, 2, 1), (6, 4)]),
        Entry(
            timm.optim.Muon,
            [{"adjust_lr_fn": "rms_to_rms", "ns_coefficients": "original"}, {"safety_factor": 1.1}],
            [(4, 5, 1, 2), (6, 4)],
        ),
        Entry(timm.optim.Muon, [{"fallback_lr_scale": 0.5, "weight_decay": 0.1}, {"nesterov": True}], [(3,), (4,)]),
        Entry(
            timm.optim.Muon,
            [{"use_fallback": True}, {"adjust_lr_fn": None, "normalize_spatial": False}],
            [(5, 4), (6, 4)],
        ),
    ],
}
"""Full name of every registered class -> entries; a test compares the names with the registry."""


def drawn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


class Last:
    """An optimizer driven to just before its last step; `fork` gives independent copies that can take it."""

    def __init__(
        self,
        kind: type[torch.optim.Optimizer],
        options: list[dict[str, Any]],
        steps: int,
        seed: int = 0,
        shapes: list[tuple[int, ...]] | None = None,
        edit: Callable[[Tensor], Tensor] = lambda gradient: gradient,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        shapes = shapes or SHAPES
        self.kind, self.options = kind, options
        self.parameters = [torch.nn.Parameter(drawn(s, generator)) for s in shapes]
        self.vectors = [drawn(s, generator) for s in shapes]
        self.optimizer = self._build(self.parameters)
        for _ in range(steps - 1):
            for parameter, shape in zip(self.parameters, shapes, strict=True):
                parameter.grad = edit(drawn(shape, generator))
            self.optimizer.step()
        self.gradients = [edit(drawn(s, generator)) for s in shapes]

    def _build(self, parameters: list[Any]) -> torch.optim.Optimizer:
        groups = [{"params": [p], **o} for p, o in zip(parameters, copy.deepcopy(self.options), strict=True)]
        common = {name: groups[0].pop(name) for name in list(LAMB) if name in groups[0]}
        if self.kind is not torch.optim.Adadelta:
            common["lr"] = 0.1
        for name in ("initial_accumulator_value",):
            values = [group.pop(name) for group in groups if name in group]
            common |= {name: values[0]} if values else {}
        return self.kind(groups, **common)  # type: ignore[call-arg]

    def fork(self, parameters: list[Tensor] | None = None) -> tuple[torch.optim.Optimizer, list[Tensor]]:
        """An optimizer of its own with the same state, on copies of the parameters."""
        parameters = parameters or [p.detach().clone() for p in self.parameters]
        twin = self._build(parameters)
        twin.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return twin, parameters

    def after(self, gradients: list[Tensor]) -> list[Tensor]:
        """Where a step along these gradients leads."""
        twin, parameters = self.fork()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        twin.step()
        return [p.detach() for p in parameters]

    def by_autodiff(self) -> list[Tensor]:
        """Dᵀx by autograd through torch's own step."""
        twin, parameters = self.fork()
        before = [p.clone() for p in parameters]
        twin.defaults["differentiable"] = True
        for group in twin.param_groups:
            group["differentiable"] = True
        last = [g.clone().requires_grad_() for g in self.gradients]
        for parameter, gradient in zip(parameters, last, strict=True):
            parameter.grad = gradient
        twin.step()
        total = sum(((old - new) * x).sum() for old, new, x in zip(before, parameters, self.vectors, strict=True))
        assert isinstance(total, Tensor)
        found = torch.autograd.grad(total, last, allow_unused=True)
        return [torch.zeros_like(g) if f is None else f for f, g in zip(found, last, strict=True)]

    def by_differences(self, h: float = 1e-5) -> list[Tensor]:
        """Dᵀx from the real step, one coordinate of the gradient at a time."""

        def total(gradients: list[Tensor]) -> float:
            return -float(sum((p * x).sum() for p, x in zip(self.after(gradients), self.vectors, strict=True)))

        result = [torch.zeros_like(g) for g in self.gradients]
        for block, gradient in enumerate(self.gradients):
            for k in range(gradient.numel()):
                values = []
                for side in (h, -h):
                    moved = [g.clone() for g in self.gradients]
                    moved[block].view(-1)[k] += side
                    values.append(total(moved))
                result[block].view(-1)[k] = (values[0] - values[1]) / (2 * h)
        return result

    def take(self) -> Memory:
        """The real last step."""
        before = remember(self.optimizer)
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient.clone()
        self.optimizer.step()
        return before

    def adapted(self, before: Memory | None, **options: Any) -> list[Tensor]:
        """Dᵀx by what serves the optimizer."""

        def named(values: Any) -> dict[str, Tensor]:
            return dict(zip(NAMES, values, strict=True))

        found = adapt(
            self.optimizer, named(self.parameters), named(self.gradients), named(self.vectors), before=before, **options
        )
        return [found[name] for name in NAMES]


def assert_near(found: list[Tensor], truth: list[Tensor], *, rtol: float, atol: float) -> None:
    for mine, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)
