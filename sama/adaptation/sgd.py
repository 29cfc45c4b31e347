"""Adaptation of stochastic gradient descent."""

from typing import Any

from torch import Tensor

from sama.adaptation.step import LastStep, missing


def gain(step: LastStep) -> Any:
    """The factor between a gradient and the step along it: momentum, dampening and Nesterov, without lr and sign.

    `1` without momentum; `1 − dampening` with it, or 1 in the first step, whose buffer is the gradient itself;
    Nesterov adds the gradient to `momentum` times that.

    Raises:
        ValueError: whether the step was the first matters, and nobody remembered.
    """
    momentum, dampening = step.option("momentum"), step.option("dampening")
    if momentum == 0:
        return 1.0
    if dampening != 0 and step.fresh is None:
        raise ValueError(
            missing(step.optimizer, "to know whether the step was the first, which dampening leaves alone")
        )
    kept = 1.0 if step.fresh else 1.0 - dampening
    return 1.0 + momentum * kept if step.group["nesterov"] else kept


def sgd(step: LastStep, vector: Tensor) -> Tensor:
    """`D = ±lr · gain` (`gain` above; − under `maximize`).

    `b ← μb + (1−dampening)g`, `u = lr·b`, or `lr·(g + μb)` with Nesterov (torch.optim.SGD). The weight decay adds
    `weight_decay·θ` to g, which does not depend on g.

    We depart from autodiff through torch's step once: torch detaches the first buffer, so that autodiff finds D = 0
    (with Nesterov lr) in the first step; the derivative is lr (with Nesterov `lr(1 + μ)`).
    """
    return step.sign * step.option("lr") * gain(step) * vector
