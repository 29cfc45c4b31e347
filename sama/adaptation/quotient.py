"""The derivative that Adam, NAdam, RAdam, Adagrad, Adadelta, RMSprop and LAMB share."""

from typing import Any

import torch
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
    seen = evidence > 0
    root = second.sqrt()
    denominator = root + eps
    # where S = 0 the second term is 0·∞: dropped
    through_root = torch.where(
        seen, numerator * second_slope / (2 * root * denominator.square()), torch.zeros_like(root)
    )
    diagonal = numerator_slope / denominator - through_root
    return diagonal if exact else torch.where(seen, diagonal, torch.zeros_like(diagonal))
