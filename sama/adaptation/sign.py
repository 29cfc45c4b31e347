"""Adaptation of optimizers that step along signs: Rprop, Lion."""

import warnings

import torch
from torch import Tensor

from sama.adaptation.step import LastStep


def sign(step: LastStep, vector: Tensor) -> Tensor:
    """`D = 0`: the size of the step does not depend on the size of the gradient, only on signs.

    Where a sign changes the step jumps and has no derivative; those coordinates are 0 too.
    """
    return torch.zeros_like(vector)


def warn_of_zero(optimizer: torch.optim.Optimizer) -> None:
    """Say once what D = 0 everywhere means for the hypergradient."""
    warnings.warn(
        f"the step of {type(optimizer).__name__} does not change with the size of its gradient, so D = 0 and v = 0: "
        "the hypergradient keeps its direct term alone; the method sama_na goes without D",
        stacklevel=3,
    )
