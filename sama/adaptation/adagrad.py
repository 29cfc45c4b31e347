"""Adaptation of Adagrad."""

from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep


def adagrad(step: LastStep, vector: Tensor) -> Tensor:
    """`s ← s + g²`, `lrₜ = lr/(1 + (t−1)·lr_decay)`, `u = lrₜ·g/(√s+ϵ)` (Duchi et al., 2011; torch.optim.Adagrad):

    `D = ±lrₜ·[ 1/(√s+ϵ) − g²/(√s·(√s+ϵ)²) ]`

    with the rule of `quotient` where s = 0. Coupled weight decay needs the parameter from before the step.
    """
    gradient, second = step.gradient(), step.moment("sum")
    rate = step.option("lr") / (1 + (step.count - 1) * step.option("lr_decay"))
    diagonal = quotient(gradient, 1.0, second, 2 * gradient, eps=step.option("eps"), evidence=second, exact=step.exact)
    return step.sign * rate * diagonal * vector
