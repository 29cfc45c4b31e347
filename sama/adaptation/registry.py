"""Which adaptation serves which optimizer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sama.adaptation.adadelta import adadelta
from sama.adaptation.adagrad import adagrad
from sama.adaptation.adam import adam
from sama.adaptation.adamax import adamax
from sama.adaptation.autodiff import autodiff
from sama.adaptation.lamb import adapts as lamb_adapts
from sama.adaptation.lamb import lamb
from sama.adaptation.lars import adapts as lars_adapts
from sama.adaptation.lars import lars
from sama.adaptation.muon import muon
from sama.adaptation.nadam import nadam
from sama.adaptation.probing import probing
from sama.adaptation.radam import radam
from sama.adaptation.replica import Gradients
from sama.adaptation.rmsprop import rmsprop
from sama.adaptation.sgd import sgd
from sama.adaptation.sign import sign
from sama.adaptation.step import Form, coupled_decay
from sama.adaptation.timm_muon import timm_muon

WholeStep = Callable[[torch.optim.Optimizer, Gradients, Sequence[Tensor | None]], list[Tensor | None]]
"""(copy of the optimizer before its step, gradients, x) -> Dᵀ x, for all parameters at once."""


def never(group: Mapping[str, Any]) -> bool:
    """No group needs its parameters from before the step."""
    return False


@dataclass(frozen=True)
class ClosedForm:
    """One parameter at a time, from the state after the step; `wants_before(group)`: and θ from before it.

    `coordinatewise`: D is diagonal and a coordinate needs nothing of the others, so that parts can be taken alone.
    """

    form: Form
    wants_before: Callable[[Mapping[str, Any]], bool] = never
    coordinatewise: bool = False


@dataclass(frozen=True)
class Generic:
    """All parameters at once, by steps of a copy of the optimizer from before its step."""

    product: WholeStep


Rule = ClosedForm | Generic

RULES: dict[str, Rule] = {}
"""Full name of a class -> what serves it. Names, so that a library need not be imported to be served."""


def full_name(kind: type) -> str:
    """`module.Class`, as the class itself says it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def register(
    optimizer: type[torch.optim.Optimizer] | str,
    adaptation: Form | WholeStep,
    *,
    wants_before: Callable[[Mapping[str, Any]], bool] = never,
    coordinatewise: bool = False,
) -> None:
    """Serve `optimizer` (this class alone, not its subclasses: they may step differently) by `adaptation`.

    Args:
        optimizer: the class, or its full name (`"timm.optim.lars.Lars"`), which does not import it.
        adaptation: a closed form `(LastStep, x) -> Dᵀx`, or `autodiff` or `probing`.
        wants_before: for a closed form: which parameter groups need their parameters from before the step.
        coordinatewise: for a closed form: it may be given some rows of a parameter at a time, which saves memory.
    """
    name = optimizer if isinstance(optimizer, str) else full_name(optimizer)
    generic = adaptation in (autodiff, probing)
    RULES[name] = Generic(adaptation) if generic else ClosedForm(adaptation, wants_before, coordinatewise)  # type: ignore[arg-type]


def rule_of(optimizer: torch.optim.Optimizer) -> Rule:
    """What serves this optimizer: its registered rule, else probing, which refuses where it would be wrong."""
    return RULES.get(full_name(type(optimizer)), Generic(probing))


register(torch.optim.SGD, sgd, coordinatewise=True)
register(torch.optim.Adam, adam, coordinatewise=True)
register(torch.optim.AdamW, adam, coordinatewise=True)
register(torch.optim.RAdam, radam, coordinatewise=True)
register(torch.optim.NAdam, nadam, wants_before=coupled_decay, coordinatewise=True)
register(torch.optim.Adamax, adamax, wants_before=coupled_decay, coordinatewise=True)
register(torch.optim.Adagrad, adagrad, wants_before=coupled_decay, coordinatewise=True)
register(torch.optim.Adadelta, adadelta, wants_before=coupled_decay, coordinatewise=True)
register(torch.optim.RMSprop, rmsprop, wants_before=coupled_decay, coordinatewise=True)
register(torch.optim.ASGD, autodiff)
register(torch.optim.Rprop, sign, coordinatewise=True)
register(torch.optim.Muon, muon)
register("timm.optim.lion.Lion", sign, coordinatewise=True)
register("timm.optim.lamb.Lamb", lamb, wants_before=lamb_adapts)
register("timm.optim.lars.Lars", lars, wants_before=lars_adapts)
register("timm.optim.muon.Muon", timm_muon)
