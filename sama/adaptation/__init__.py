"""Algorithmic adaptation: the product `Dᵀ x` with `D = ∂u/∂g`, u the base optimizer's update, g its last gradient.

The base optimizer moves `θ ← θ − u(g; state)`; SAMA (Choe et al. 2023, section 3.2) multiplies the meta gradient by
`D` so that the hypergradient knows the update rule. Everything is evaluated at the last step:

    before = remember(optimizer)     # what the adaptation needs from before the step, often nothing
    optimizer.step()
    v = adapt(optimizer, parameters, gradients, x, before=before)

Which optimizers
- Closed forms, one a file: SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, Adadelta and RMSprop of torch; Muon (torch
  and timm), LAMB and LARS (timm), whose D is not diagonal; Rprop and Lion, whose D is 0.
- `autodiff` through a differentiable step of a copy: ASGD, and any class registered with it.
- `probing` everything else, third-party optimizers too, if its update acts coordinate by coordinate; an error if not.
A class is known by its full name. A subclass is not its parent: it is probed until it registers.

Rules
- No evidence: where a second moment is 0, a coordinate never saw a gradient. The formulas give `lr/ϵ` there, or have no
  limit at all; we take D = 0. `exact=True` gives the limit, for tests.
- No gradient: a parameter that the step left out (its gradient was None) did not move, D = 0.
- Signs: where the update depends on signs alone (Rprop, Lion), D = 0 everywhere, v = 0, and the hypergradient keeps its
  direct term alone. A warning says so. `sama_na` goes without D.
- Clipping and loss scaling stand between ∂L/∂θ and the update. D is taken at the gradient that the optimizer saw, and
  the factor is a constant to it: the derivative of the clip factor itself, which couples all parameters, is left out.
  `clip_factor` multiplies the result by it. LAMB clips by itself and is treated in the same way.
"""

from collections import Counter
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sama.adaptation.autodiff import autodiff
from sama.adaptation.probing import probing
from sama.adaptation.registry import RULES, Generic, register, rule_of
from sama.adaptation.replica import held, replicate
from sama.adaptation.sign import sign, warn_of_zero
from sama.adaptation.step import Form, LastStep, missing

__all__ = ["RULES", "LastStep", "Memory", "adapt", "autodiff", "probing", "register", "remember"]


@dataclass(frozen=True)
class Memory:
    """What an adaptation needs from before the step.

    Attributes:
        fresh: ids of parameters that had no state.
        parameters: id of a parameter -> a copy of it, where its closed form asks for one.
        replica: a copy of the whole optimizer, for autodiff and probing alone.
    """

    fresh: frozenset[int]
    parameters: Mapping[int, Tensor] = field(default_factory=dict)
    replica: torch.optim.Optimizer | None = None


@torch.no_grad()
def remember(optimizer: torch.optim.Optimizer) -> Memory:
    """What `adapt` will need from before the step; call it before the steps that a meta step follows.

    | optimizer | copied, group by group |
    |---|---|
    | SGD, Adam, AdamW, RAdam, Muon, timm's Muon, Rprop, Lion | nothing |
    | NAdam, Adamax, Adagrad, Adadelta, RMSprop | the parameters where weight decay is coupled |
    | LAMB, LARS | the parameters where the trust ratio is in use: with weight decay, or `always_adapt` |
    | served by autodiff or probing | the whole optimizer, parameters and state |

    Raises:
        ValueError: the optimizer would have to be copied and cannot.
    """
    rule = rule_of(optimizer)
    if isinstance(rule, Generic):
        return Memory(frozenset(), replica=replicate(optimizer))
    fresh = frozenset(id(p) for p in held(optimizer) if not _has_state(optimizer, p))
    wanted = [p for group in optimizer.param_groups if rule.wants_before(group) for p in group["params"]]
    return Memory(fresh, {id(p): p.detach().clone() for p in wanted})


def _has_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    return any(value is not None for value in optimizer.state.get(parameter, {}).values())


@torch.no_grad()
def adapt(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    vector: MutableMapping[str, Tensor],
    *,
    before: Memory | None = None,
    clip_factor: float | Tensor = 1.0,
    exact: bool = False,
    consume: bool = False,
) -> dict[str, Tensor]:
    """`clip_factor · Dᵀ x`, name by name. Touches neither the optimizer and its state, nor parameters or random state.

    A closed form that acts coordinate by coordinate takes a large parameter a few rows at a time, so that its
    temporaries stay small beside the parameters.

    Args:
        optimizer: the base optimizer, after its step and before the schedulers'.
        parameters: name -> parameter, the very tensors that the optimizer holds.
        gradients: name -> the gradient that the optimizer saw in that step (after clipping and unscaling); a name
            without one was not moved.
        vector: name -> x, shaped like the parameter.
        before: `remember(optimizer)` from before that step; some closed forms do without it and say so if not.
        clip_factor: what ∂L/∂θ was multiplied by to become that gradient.
        exact: closed forms give the formula's limit where there is no evidence.
        consume: take each x out of `vector` as soon as it was used, so that its memory can go; a large one that shares
            its memory with no other is written over with its product.

    Returns:
        name -> `Dᵀ x`, new tensors.

    Raises:
        ValueError: nothing serves the optimizer; it does not hold one of the parameters, took no step, or `before` is
            needed; a gradient is sparse or complex.
    """
    rule, large = rule_of(optimizer), set[str]()
    kind = type(optimizer).__name__
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name in vector:
        if id(parameters[name]) not in groups:
            raise ValueError(f"parameter {name}: the optimizer {kind} does not hold it")
    for name, gradient in gradients.items():
        if gradient.is_sparse or gradient.is_complex():
            raise ValueError(
                f"parameter {name}: expected a dense real gradient, got {gradient.layout} {gradient.dtype}"
            )
    if isinstance(rule, Generic):
        adapted = _by_a_copy(rule, optimizer, parameters, gradients, vector, before)
        if consume:
            vector.clear()
    else:
        if rule.form is sign:
            warn_of_zero(optimizer)
        adapted, every = {}, list(gradients.values())
        part = max(SMALL, sum(x.numel() for x in vector.values()) // PARTS)
        owners = Counter(_memory(x) for x in vector.values())  # of a sum, autograd gives both terms one gradient
        for name in list(vector):
            x = vector.pop(name) if consume else vector[name]
            parameter = parameters[name]
            if name not in gradients:
                adapted[name] = torch.zeros_like(x)
                continue
            step = LastStep(
                optimizer,
                groups[id(parameter)],
                optimizer.state.get(parameter, {}),
                parameter,
                gradients[name],
                every,
                None if before is None else before.parameters.get(id(parameter)),
                None if before is None else id(parameter) in before.fresh,
                exact,
            )
            if rule.coordinatewise and x.numel() > part and type(x) is Tensor:  # a sharded one is taken whole
                own = consume and owners[_memory(x)] == 1 and x.is_contiguous()
                adapted[name] = _in_parts(rule.form, step, x, part, x if own else torch.empty_like(x))
                large.add(name)
            else:
                adapted[name] = rule.form(step, x).to(x.dtype)
    if isinstance(clip_factor, Tensor) or clip_factor != 1.0:
        for name in adapted:  # one after the other for the memory; a form may hand x back, which is not ours to change
            adapted[name] = adapted[name].mul_(clip_factor) if name in large else clip_factor * adapted[name]
    return adapted


PARTS, SMALL = 128, 2**15
"""A closed form sees one of so many parts of all coordinates at a time, or so many coordinates if that is more."""


def _memory(x: Tensor) -> int:
    """Where a tensor's storage begins; a sharded one is nobody else's."""
    return x.untyped_storage().data_ptr() if type(x) is Tensor else id(x)


def _in_parts(form: Form, step: LastStep, x: Tensor, size: int, out: Tensor) -> Tensor:
    """`form(step, x)`, some rows with about `size` coordinates at a time, written to `out`, which may be x."""
    count = max(1, size * len(x) // x.numel())
    for start in range(0, len(x), count):
        rows = slice(start, start + count)
        out[rows] = form(step.rows(rows), x[rows])
    return out


def _by_a_copy(
    rule: Generic,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    vector: Mapping[str, Tensor],
    before: Memory | None,
) -> dict[str, Tensor]:
    """Autodiff and probing see all parameters, in the optimizer's order."""
    if before is None or before.replica is None:
        raise ValueError(missing(optimizer, "a copy of the optimizer from before the step"))
    names = {id(parameter): name for name, parameter in parameters.items()}
    order = [names.get(id(p)) for p in held(optimizer)]
    products = rule.product(
        before.replica,
        [None if name is None else gradients.get(name) for name in order],
        [None if name is None else vector.get(name) for name in order],
    )
    return {
        name: product for name, product in zip(order, products, strict=True) if name is not None and product is not None
    }
