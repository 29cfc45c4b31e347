"""Adaptation of Adadelta."""

from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep


def adadelta(step: LastStep, vector: Tensor) -> Tensor:
    """`s ← ρs + (1−ρ)g²`, `δ = √(a+ϵ)·g/√(s+ϵ)`, `u = lr·δ`, then `a ← ρa + (1−ρ)δ²` (Zeiler, 2012):

    `D = ±lr·√(a+ϵ)·[ 1/√(s+ϵ) − g²(1−ρ)/(s+ϵ)^{3/2} ]`

    a is the one from before the step. It is found again from the one after it, `a'`, without cancellation:
    `a+ϵ = (s+ϵ)(a'+ρϵ)/(ρ(s+ϵ) + (1−ρ)g²)`. The formula is finite where s = 0 (D = lr at a coordinate never seen), but
    the rule holds here too: without evidence 0. Coupled weight decay needs the parameter from before the step.
    """
    rho, eps = step.option("rho"), step.option("eps")
    gradient, second = step.gradient(), step.moment("square_avg")
    shifted = second + eps
    past = shifted * (step.moment("acc_delta") + rho * eps) / (rho * shifted + (1 - rho) * gradient.square())
    scale = past.sqrt()
    diagonal = quotient(
        scale * gradient,
        scale,
        shifted,
        2 * (1 - rho) * gradient,
        eps=0.0,
        evidence=shifted if step.exact else second,
        exact=step.exact,
    )
    return step.sign * step.option("lr") * diagonal * vector
