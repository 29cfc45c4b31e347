"""Margin: how sure a trained model is between its two best classes."""

import numpy as np
from scipy.special import softmax

from sama.scores.context import Context


def margin(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`1 − (p₍₁₎ − p₍₂₎)`, the gap between the two largest class probabilities, mean over models; small gap = kept.

    Least-margin selection of Coleman et al. 2020, "Selection via Proxy", section 2.2. It does not look at labels.
    """
    probabilities = np.sort(softmax(context.train_models(models, steps), axis=-1), axis=-1)
    return (1 - (probabilities[..., -1] - probabilities[..., -2])).mean(axis=0)
