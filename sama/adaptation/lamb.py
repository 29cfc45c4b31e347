"""Adaptation of LAMB (timm.optim.Lamb)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep, full, scalar


def adapts(group: Mapping[str, Any]) -> bool:
    """Whether the trust ratio is in use for this group."""
    return bool(group["weight_decay"] != 0 or group["always_adapt"])


def clipping(step: LastStep) -> Any:
    """What LAMB divides gradients by: `max(1, ‖all gradients‖/max_grad_norm)`, the norm over all parameters."""
    limit = step.optimizer.defaults["max_grad_norm"]
    if limit is None:
        return 1.0
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(step.gradients))))
    return (norm / limit).clamp(min=1.0)


def lamb(step: LastStep, vector: Tensor) -> Tensor:
    """Layer-wise adaptive Adam (You et al., 2020, algorithm 2, as timm has it): `u = lr·τ·U`, with `h = g/c`,

    `U = A(h)·k + wd·θ` (the last term only where the decay is coupled), A Adam's quotient, k the mask of "caution"
    divided by its mean, and one trust ratio `τ = ‖θ‖/‖U‖` a tensor (1 where either norm is 0; LAMBC: at most 1):

    `Dᵀx = A'·k·τ·(y − U·(Uᵀy)/‖U‖²)/c`, `y = lr·x`

    where the projection is dropped wherever τ is constant. A' is Adam's diagonal, with the rule of `quotient` where the
    second moment is 0. The factor c of LAMB's own clipping by the norm of all gradients is a constant to D, like that
    of any clipping (`sama.adaptation`), and so is the mask. ‖θ‖ is that after decoupled decay.
    """
    group, (beta1, beta2), count = step.group, step.betas, scalar(step.group["step"])
    corrected1, corrected2 = (1 - beta1**count, 1 - beta2**count) if group["bias_correction"] else (1.0, 1.0)
    beta3 = 1 - beta1 if group["grad_averaging"] else 1.0
    divisor = clipping(step)
    gradient = full(step.raw_gradient) / divisor
    average, second = step.moment("exp_avg") / corrected1, step.moment("exp_avg_sq") / corrected2
    slope = 2 * (1 - beta2) * gradient / corrected2
    eps, lr = step.option("eps"), step.option("lr")
    diagonal = quotient(average, beta3 / corrected1, second, slope, eps=eps, evidence=second, exact=step.exact)
    update = average / (second.sqrt() + eps)
    if group["caution"]:
        mask = (update * gradient > 0).to(gradient.dtype)
        mask = mask / mask.mean().clamp(min=1e-3)
        update, diagonal = update * mask, diagonal * mask
    along = lr * vector
    if adapts(group):
        along = _through_trust(step, update, along)
    return diagonal * along / divisor


def _through_trust(step: LastStep, update: Tensor, along: Tensor) -> Tensor:
    """`τ·(y − U·(Uᵀy)/‖U‖²)`, or `τ·y` where τ does not move."""
    decay, parameter = step.option("weight_decay"), full(step.parameter_before)
    if step.group["decoupled_decay"]:
        lr = step.option("lr")
        rate = lr**2 / step.group["max_lr_snapshot"] if step.group["corrected_weight_decay"] else lr
        parameter = parameter * (1 - rate * decay)
    else:
        update = update + decay * parameter
    size, length = parameter.norm(), update.norm()
    adapting = (size > 0) & (length > 0)
    safe = torch.where(adapting, length, torch.ones_like(length))
    trust = torch.where(adapting, size / safe, torch.ones_like(size))
    if step.group["trust_clip"]:
        adapting = adapting & (trust < 1)
        trust = trust.clamp(max=1.0)
    projected = torch.where(adapting, (update * along).sum() / safe.square(), torch.zeros_like(length))
    return trust * (along - projected * update)
