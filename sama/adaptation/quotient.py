"""The derivative that Adam, NAdam, RAdam, Adagrad, Adadelta, RMSprop and LAMB share."""

from typing import Any

from torch import Tensor


def quotient(
    numerator: Tensor,
    numerator_slope: Any,
    second: Tensor,
    second_slope: Tensor,
    *,
    eps: Any,
    evidence: Tensor,
    exact: bool,
) -> Tensor:
    """`d/dg [ N/(√S + ϵ) ] = N'/(√S+ϵ) − N·S' / (2√S·(√S+ϵ)²)`, coordinate by coordinate.

    Args:
        numerator: N, and numerator_slope N': a tensor or a number.
        second: S ≥ 0, the second moment as it stands under the root, and second_slope S'.
        eps: ϵ.
        evidence: coordinates where it is not > 0 never saw a gradient. There √S has no derivative, and the limit
            `N'/ϵ` is hundreds to thousands of times a usual value, so that one such coordinate owns the norm of v.
            Without evidence we take 0.
        exact: take the limit `N'/(√S+ϵ)` there (for tests).
    """
    seen = evidence.sign().relu_()  # 1 or 0: comparisons and masks take several times as long on the CPU
    root = second.relu().sqrt_()
    denominator = root + eps
    through_root = (numerator * second_slope).mul_(seen)
    root.add_(1 - seen).mul_(denominator)  # nothing is divided by 0
    through_root.mul_(0.5).div_(root).neg_().add_(numerator_slope)
    diagonal = through_root.div_(denominator)
    return diagonal if exact else diagonal.mul_(seen)
