"""Adaptation of Muon (torch.optim.Muon), by autodiff through our own statement of its iteration."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sama.adaptation.step import LastStep, full

Triple = tuple[float, float, float]


def newton_schulz(
    matrix: Tensor, coefficients: Sequence[Triple], *, eps: float, margin: float, add_eps: bool
) -> Tensor:
    """`X ← aX + (bA + cA²)X`, `A = XXᵀ`, for each (a, b, c), from `X = M/max(margin·‖M‖, ϵ)`, on the shorter side.

    `[..., m, n]` -> the same shape: singular vectors kept, singular values driven towards 1 (Jordan et al., 2024).
    Optimizers run it in bfloat16; here it is smooth, in the precision of `matrix`: the iteration is differentiated,
    not its rounding.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) * margin
    x = x / (norm + eps if add_eps else norm.clamp(min=eps))
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def orthogonalised(
    direction: Tensor,
    vector: Tensor,
    coefficients: Sequence[Triple],
    *,
    eps: float,
    margin: float = 1.0,
    add_eps: bool = False,
) -> Tensor:
    """`Jᵀx` of `newton_schulz` at `direction`; 0 for a matrix without evidence (norm ≤ ϵ), where J is of size 1/ϵ."""
    with torch.enable_grad():
        leaf = direction.detach().requires_grad_()
        value = newton_schulz(leaf, coefficients, eps=eps, margin=margin, add_eps=add_eps)
        (product,) = torch.autograd.grad(value, leaf, vector.to(value.dtype))
    norm = torch.linalg.vector_norm(direction, dim=(-2, -1), keepdim=True)
    return torch.where(norm > eps, product, torch.zeros_like(product))


def averaged(step: LastStep) -> tuple[Tensor, Any]:
    """(what enters the iteration, its derivative by g): `b ← μb + (1−μ)g`, `b`, or with Nesterov `(1−μ)g + μb`."""
    momentum, buffer = step.option("momentum"), step.moment("momentum_buffer")
    if not step.group["nesterov"]:
        return buffer, 1 - momentum
    return full(step.raw_gradient).lerp(buffer, momentum), (1 - momentum) * (1 + momentum)


def muon(step: LastStep, vector: Tensor) -> Tensor:
    """`u = lr·κ·NS(d)`, d the averaged gradient (`averaged`), κ the shape's factor: `Dᵀx = d'·JᵀNS(lr·κ·x)`.

    κ is `√max(1, m/n)` ("original"), `0.2√max(m, n)` ("match_rms_adamw") or `√(m/n)` ("spectral_unclamped"). The
    weight decay is decoupled and does not enter. See `newton_schulz` for bfloat16.
    """
    rows, columns = step.parameter.shape
    adjust = step.group["adjust_lr_fn"] or "original"
    factors = {
        "original": math.sqrt(max(1, rows / columns)),
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
        "spectral_unclamped": math.sqrt(rows / columns),
    }
    direction, slope = averaged(step)
    coefficients = [tuple(step.group["ns_coefficients"])] * step.group["ns_steps"]
    along = step.option("lr") * factors[adjust] * full(vector)
    return slope * orthogonalised(direction, along, coefficients, eps=step.group["eps"])
