"""Adaptation of NAdam."""

from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep, scalar


def nadam(step: LastStep, vector: Tensor) -> Tensor:
    """Adam with Nesterov momentum and a momentum schedule (Dozat, 2016; torch.optim.NAdam).

    `μₜ = β₁(1 − ½·0.96^(t·ψ))`, `Πₜ = μ₁⋯μₜ` (ψ = `momentum_decay`), `ŝ = s/(1−β₂ᵗ)`,
    `u = lr·(a·g + b·m)/(√ŝ+ϵ)` with `a = (1−μₜ)/(1−Πₜ)`, `b = μₜ₊₁/(1−Πₜ₊₁)`, hence `N' = a + b(1−β₁)` in

    `D = ±lr·[ N'/(√ŝ+ϵ) − (a·g + b·m)·(1−β₂)·g/((1−β₂ᵗ)·√ŝ·(√ŝ+ϵ)²) ]`

    Where the weight decay is coupled, g needs the parameter from before the step: it cannot be found again, because the
    step divides g itself by √ŝ.
    """
    (beta1, beta2), count = step.betas, step.count
    decay = step.option("momentum_decay")
    present = beta1 * (1 - 0.5 * 0.96 ** (count * decay))
    following = beta1 * (1 - 0.5 * 0.96 ** ((count + 1) * decay))
    product = scalar(step.moment("mu_product"))
    of_gradient = (1 - present) / (1 - product)
    of_average = following / (1 - product * following)
    corrected2 = 1 - beta2**count
    gradient = step.gradient()
    second = step.moment("exp_avg_sq") / corrected2
    diagonal = quotient(
        of_gradient * gradient + of_average * step.moment("exp_avg"),
        of_gradient + of_average * (1 - beta1),
        second,
        2 * (1 - beta2) * gradient / corrected2,
        eps=step.option("eps"),
        evidence=second,
        exact=step.exact,
    )
    return step.sign * step.option("lr") * diagonal * vector
