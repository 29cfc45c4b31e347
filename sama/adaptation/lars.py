"""Adaptation of LARS and LARC (timm.optim.Lars)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sama.adaptation.sgd import gain
from sama.adaptation.step import LastStep, full, scalar


def adapts(group: Mapping[str, Any]) -> bool:
    """Whether the trust ratio is in use for this group; if not, LARS is SGD."""
    return bool(group["weight_decay"] != 0 or group["always_adapt"])


def lars(step: LastStep, vector: Tensor) -> Tensor:
    """Layer-wise adaptive SGD (You et al., 2017): SGD on `τ·q`, `q = g + wd·θ`, with one trust ratio τ a tensor.

    `τ = η‖θ‖/n`, `n = ‖g‖ + wd‖θ‖ + ϵ` (1 where ‖θ‖ or ‖g‖ is 0), LARC: `min(τ/lr, 1)`. D is not diagonal:

    `Dᵀx = τ·y − (τ/n)·(qᵀy)·g/‖g‖`, `y = lr·gain·x` (the gain of momentum as in `sgd`)

    where the second term is dropped wherever τ is constant: ‖θ‖ or ‖g‖ is 0, or LARC caps it at 1. ‖θ‖ is that from
    before the step. Without weight decay and `always_adapt`, LARS is SGD.
    """
    lr = step.option("lr")
    along = lr * gain(step) * vector
    if not adapts(step.group):
        return along
    gradient, parameter = full(step.raw_gradient), full(step.parameter_before)
    decay = step.option("weight_decay")
    length, size = gradient.norm(), parameter.norm()
    bottom = length + size * decay + scalar(step.group["eps"])
    trust = step.option("trust_coeff") * size / bottom
    adapting = (size > 0) & (length > 0)
    trust = torch.where(adapting, trust, torch.ones_like(trust))
    if step.group["trust_clip"]:
        trust = trust / lr
        adapting = adapting & (trust < 1)
        trust = trust.clamp(max=1.0)
    moved = gradient + decay * parameter
    tiny = torch.finfo(length.dtype).tiny
    slope = torch.where(
        adapting, trust / bottom * (moved * along).sum() / length.clamp(min=tiny), torch.zeros_like(trust)
    )
    return trust * along - slope * gradient
