"""GraNd: the norm of an example's own gradient, early in training."""

import numpy as np

from sama.scores.context import Context


def grand(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`E‖∂ℓ(x, y)/∂θ‖₂` over models trained for a few steps; large = hard = kept.

    Paul et al., "Deep Learning on a Data Diet: Finding Important Examples Early in Training", NeurIPS 2021: all
    parameters, and the loss of one example alone. The norm of a mean-reduced batch loss is another quantity, 1/batch as
    large and mixed with its neighbours. Models are in evaluation mode, for in training mode BatchNorm gives an example
    no gradient of its own.
    """
    return context.gradient_norms(models, steps).mean(axis=0)
