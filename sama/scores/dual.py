"""DUAL: difficulty times uncertainty, early in training."""

import numpy as np

from sama.scores.context import Context
from sama.scores.dynamics import over_windows


def dual(context: Context, *, window: int, epochs: int | None) -> np.ndarray:
    """`mean_k (1 − P_k) · S_k`, mean `P_k` and sample deviation `S_k` of `p_y` over visits k … k+J−1; large = kept.

    Cho et al., "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction Uncertainty",
    ICML 2025, J = `window`, on the first `epochs` epochs. Its sampling by a Beta distribution is the selection strategy
    `beta`.
    """
    probability = context.dynamics("probability", epochs)
    return over_windows(probability, window, lambda p: (1 - p.mean(axis=-1)) * p.std(axis=-1, ddof=1)).mean(axis=0)
