"""Adaptation of RAdam."""

from typing import Any

import torch
from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep, coupled_decay, full


def rectification(beta2: Any, count: Any) -> tuple[Any, Any]:
    """(whether the second moment is trusted, the factor r), floats or tensors like `count`.

    `ρ∞ = 2/(1−β₂) − 1`, `ρ = ρ∞ − 2t·β₂ᵗ/(1−β₂ᵗ)`, trusted if `ρ > 5`, and then
    `r = √( (ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ) )` (Liu et al., 2020, algorithm 2, with torch's threshold).
    """
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * count * beta2**count / (1 - beta2**count)
    if not isinstance(length, Tensor):
        if not length > 5:
            return False, 0.0
        return True, ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
    square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    return length > 5, square.clamp(min=0).sqrt()


def radam(step: LastStep, vector: Tensor) -> Tensor:
    """Rectified Adam: `u = lr·r·m̂·√(1−β₂ᵗ)/(√s+ϵ)` once the second moment is trusted, before that `u = lr·m̂`
    (`rectification`; `m̂ = m/(1−β₁ᵗ)`), hence `D = ±lr(1−β₁)/(1−β₁ᵗ)` before, and then

    `D = ±lr·r·√(1−β₂ᵗ)·[ (1−β₁)/((1−β₁ᵗ)(√s+ϵ)) − m̂·(1−β₂)·g/(√s·(√s+ϵ)²) ]`

    with the rule of `quotient` where s = 0 (not before: nothing is divided there). ϵ stands beside the uncorrected √s,
    as in torch. θ before the step, for coupled weight decay, is found again as `θ + u`.
    """
    (beta1, beta2), count, lr = step.betas, step.count, step.option("lr")
    average = step.moment("exp_avg") / (1 - beta1**count)
    slope = (1 - beta1) / (1 - beta1**count)
    second, eps = step.moment("exp_avg_sq"), step.option("eps")
    trusted, factor = rectification(beta2, count)
    if trusted is False:
        return step.sign * lr * slope * vector
    factor = factor * (1 - beta2**count) ** 0.5
    before = None
    if coupled_decay(step.group):
        before = full(step.parameter) + lr * factor * average / (second.sqrt() + eps)
    second_slope = 2 * (1 - beta2) * step.gradient(before=before)
    diagonal = factor * quotient(average, slope, second, second_slope, eps=eps, evidence=second, exact=step.exact)
    if isinstance(trusted, Tensor):
        diagonal = torch.where(trusted, diagonal, slope)
    return step.sign * lr * diagonal * vector
