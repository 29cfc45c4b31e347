"""DUAL: difficulty times uncertainty, early in training."""

import numpy as np

from sama.scores.context import Context
from sama.scores.dynamics import over_windows


def dual(context: Context, *, window: int, epochs: int | None) -> np.ndarray:
    """`mean_k (1 − P_k) · S_k`, mean `P_k` and sample deviation `S_k` of `p_y` over visits k … k+J−1; large = kept.

    Cho et al. 2025, "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction
    Uncertainty", section 3, J = `window`, on the first `epochs` epochs. The paper's sampling by a Beta distribution,
    for high ratios, is not part of the score.
    """
    probability = context.dynamics(epochs).probability
    return over_windows(probability, window, lambda p: (1 - p.mean(axis=-1)) * p.std(axis=-1, ddof=1)).mean(axis=0)
