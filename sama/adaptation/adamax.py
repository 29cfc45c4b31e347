"""Adaptation of Adamax."""

import torch
from torch import Tensor

from sama.adaptation.step import LastStep


def adamax(step: LastStep, vector: Tensor) -> Tensor:
    """`n ← max(β₂n, |g|+ϵ)`, `u = lr/(1−β₁ᵗ)·m/n` (Kingma & Ba, 2015, algorithm 2, with torch's place of ϵ):

    `D = ±lr/(1−β₁ᵗ)·[ (1−β₁)/n − [n = |g|+ϵ]·m·sign(g)/n² ]`

    n depends on g only where the present gradient is the largest. The comparison repeats torch's own arithmetic, so it
    is exact; coupled weight decay needs the parameter from before the step for it. Where n ≤ ϵ no gradient was ever
    seen, or it is long forgotten; the formula gives `lr(1−β₁)/((1−β₁ᵗ)ϵ)`, and without evidence we take 0.
    """
    beta1, _ = step.betas
    gradient, norm, eps = step.gradient(), step.moment("exp_inf"), step.option("eps")
    largest = gradient.abs() + eps >= norm
    through_norm = torch.where(
        largest, step.moment("exp_avg") * gradient.sign() / norm.square(), torch.zeros_like(norm)
    )
    diagonal = (1 - beta1) / norm - through_norm
    if not step.exact:
        diagonal = torch.where(norm > eps, diagonal, torch.zeros_like(diagonal))
    return step.sign * step.option("lr") / (1 - beta1**step.count) * diagonal * vector
