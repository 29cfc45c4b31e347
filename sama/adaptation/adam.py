"""Adaptation of Adam and AdamW."""

import torch
from torch import Tensor

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
    average, present = step.moment("exp_avg"), step.moment("exp_avg_sq")
    largest = step.moment("max_exp_avg_sq") if step.group["amsgrad"] else present
    root, scale = largest.sqrt(), corrected2**-0.5
    denominator = (root * scale).add_(step.option("eps"))
    before = None
    if coupled_decay(step.group):
        before = full(step.parameter) + average / denominator * (step.option("lr") / corrected1)
    # in place and without a mask: at the sizes of models time goes into passes over memory, and comparisons take
    # several times as long as arithmetic on the CPU
    seen = root.sign()
    root.add_(torch.finfo(root.dtype).tiny)  # nothing to the root of a positive number
    product = (average / root).mul_(step.gradient(before=before)).div_(denominator)
    if step.group["amsgrad"]:
        product.masked_fill_(present < largest, 0.0)
    if step.exact:
        product.mul_(seen)
    rate = step.sign * step.option("lr") / corrected1
    product.mul_(-rate * (1 - beta2) / (corrected2 * scale)).add_(rate * (1 - beta1)).mul_(vector).div_(denominator)
    return product if step.exact else product.mul_(seen)
