"""Adaptation of Adam and AdamW."""

import torch
from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep, coupled_decay, full


def adam(step: LastStep, vector: Tensor) -> Tensor:
    """Bias-corrected Adam, with `m̂ = m/(1−β₁ᵗ)`, `ŝ = s/(1−β₂ᵗ)` and `u = lr·m̂/(√ŝ+ϵ)` (Kingma & Ba, 2015):

    `D = ±lr·[ (1−β₁)/((1−β₁ᵗ)(√ŝ+ϵ)) − m̂·(1−β₂)·g/((1−β₂ᵗ)·√ŝ·(√ŝ+ϵ)²) ]`

    g includes `maximize` (the sign ±) and the L2 term `weight_decay·θ` of Adam; AdamW decays outside of the update and
    has none. θ before the step is not remembered but found again, as `θ + u`: one rounding times the weight decay.
    With amsgrad, ŝ is made from the largest s so far, which depends on g only where that is the present one.
    Where s = 0, D follows the rule of `quotient`.
    """
    (beta1, beta2), count = step.betas, step.count
    corrected1, corrected2 = 1 - beta1**count, 1 - beta2**count
    average = step.moment("exp_avg") / corrected1
    present = step.moment("exp_avg_sq")
    largest = step.moment("max_exp_avg_sq") if step.group["amsgrad"] else present
    second = largest / corrected2
    before = None
    if coupled_decay(step.group):
        before = full(step.parameter) + step.option("lr") * average / (second.sqrt() + step.option("eps"))
    slope = 2 * (1 - beta2) * step.gradient(before=before) / corrected2
    if step.group["amsgrad"]:
        slope = torch.where(present >= largest, slope, torch.zeros_like(slope))
    diagonal = quotient(
        average,
        (1 - beta1) / corrected1,
        second,
        slope,
        eps=step.option("eps"),
        evidence=second,
        exact=step.exact,
    )
    return step.sign * step.option("lr") * diagonal * vector
