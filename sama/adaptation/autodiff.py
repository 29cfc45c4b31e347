"""Adaptation by autodiff through one step of an optimizer that takes `differentiable=True`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sama.adaptation.replica import Gradients, convert, held, replicate, same_draws, take_step


def autodiff(
    before: torch.optim.Optimizer, gradients: Gradients, vectors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """`Dᵀx` by one differentiable step of a copy.

    Serves Adadelta, Adagrad, Adam, Adamax, AdamW, ASGD, NAdam, RAdam, RMSprop, Rprop and SGD of torch.optim with all
    their options and groups, and any class that steps under autograd when its groups say `differentiable`. The step
    counter and torch's other 0-dimensional state go to float64: in float32, `1 − βᵗ` loses five digits.

    A derivative that is NaN while gradient and step are finite comes from the root of a second moment that is 0; there
    D = 0, the rule of closed forms. torch detaches the first momentum buffer of SGD, and with it most of the derivative
    of the first step; here that step starts from a buffer of zeros, without dampening, which is the same step.

    Args:
        before: a copy of the optimizer from before its step; left as it is.
        gradients: those that the optimizer saw.
        vectors: x, None where it is not asked for.

    Raises:
        ValueError: the step fails under autograd.
    """
    twin = replicate(before)
    after = held(twin)
    convert(twin, _precise)
    twin.defaults["differentiable"] = True
    for group in list(twin.param_groups):
        group.update(differentiable=True, foreach=False)
        if "fused" in group:
            group["fused"] = False
        if isinstance(twin, torch.optim.SGD) and group["momentum"] != 0:
            _begin_undamped(twin, group)
    leaves = [None if g is None else g.detach().clone().requires_grad_() for g in gradients]
    with same_draws(twin):
        take_step(twin, after, leaves)
    products: list[Tensor | None] = [None if x is None else torch.zeros_like(x) for x in vectors]
    rows = [
        (k, leaf, moved, x)
        for k, (leaf, moved, x) in enumerate(zip(leaves, after, vectors, strict=True))
        if leaf is not None and x is not None and moved.requires_grad
    ]
    if not rows:
        return products
    found = torch.autograd.grad(
        [moved for _, _, moved, _ in rows],
        [leaf for _, leaf, _, _ in rows],
        [-x.to(moved.dtype) for _, _, moved, x in rows],
        allow_unused=True,
    )
    for (k, leaf, moved, _), value in zip(rows, found, strict=True):
        if value is not None:
            sound = leaf.isfinite() & moved.isfinite()
            products[k] = torch.where(value.isnan() & sound, torch.zeros_like(value), value).detach()
    return products


def _precise(tensor: Tensor) -> Tensor:
    """0-dimensional state in float64, where the device has it."""
    counts = tensor.ndim == 0 and tensor.is_floating_point() and tensor.device.type != "mps"
    return tensor.double() if counts else tensor


def _begin_undamped(twin: torch.optim.Optimizer, group: dict[str, Any]) -> None:
    """Move the parameters without a momentum buffer to a group without dampening, with a buffer of zeros."""
    fresh = [p for p in group["params"] if twin.state[p].get("momentum_buffer") is None]
    group["params"] = [p for p in group["params"] if all(p is not q for q in fresh)]
    twin.param_groups.append({**group, "params": fresh, "dampening": 0})
    for parameter in fresh:
        twin.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
