"""Adaptation of RMSprop."""

import torch
from torch import Tensor

from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep


def rmsprop(step: LastStep, vector: Tensor) -> Tensor:
    """`s ← αs + (1−α)g²`, `q = s`, or `s − ḡ²` if centered with `ḡ ← αḡ + (1−α)g`, and `u = lr·g/(√q+ϵ)`, or with
    momentum `b ← μb + g/(√q+ϵ)`, `u = lr·b` (Tieleman & Hinton, 2012; Graves, 2013; torch.optim.RMSprop):

    `D = ±lr·[ 1/(√q+ϵ) − g·q'/(2√q·(√q+ϵ)²) ]`, `q' = 2(1−α)g`, or `2(1−α)(g − ḡ)` if centered.

    Momentum adds what earlier gradients left and does not enter D. The rule of `quotient` holds where q = 0, which
    with `centered` is also a coordinate whose gradient never changed: there q is what rounding leaves of s − ḡ², up to
    16 units of s. Coupled weight decay needs the parameter from before the step.
    """
    alpha, gradient, second = step.option("alpha"), step.gradient(), step.moment("square_avg")
    deviation, evidence = gradient, second
    if step.group["centered"]:
        mean = step.moment("grad_avg")
        deviation, second = gradient - mean, second.addcmul(mean, mean, value=-1)
        evidence = second - 16 * torch.finfo(second.dtype).eps * evidence
    diagonal = quotient(
        gradient,
        1.0,
        second,
        2 * (1 - alpha) * deviation,
        eps=step.option("eps"),
        evidence=evidence,
        exact=step.exact,
    )
    return step.sign * step.option("lr") * diagonal * vector
