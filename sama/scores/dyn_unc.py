"""Dyn-Unc: how much the probability of the observed label wavers in training."""

import numpy as np

from sama.scores.context import Context
from sama.scores.dynamics import over_windows


def dyn_unc(context: Context, *, window: int, epochs: int | None) -> np.ndarray:
    """`mean_k S_k`, `S_k` the sample deviation of `p_y` over visits k … k+J−1; wavering = kept.

    He et al., "Large-scale Dataset Pruning with Dynamic Uncertainty", CVPR Workshops 2024, J = `window`. Easy examples
    do not waver, and wrong labels that are never believed do not either: neither end is kept.
    """
    probability = context.dynamics("probability", epochs)
    return over_windows(probability, window, lambda p: p.std(axis=-1, ddof=1)).mean(axis=0)
