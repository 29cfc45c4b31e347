"""Margin: how sure a trained model is between its two best classes."""

import numpy as np
from scipy.special import softmax

from sama.scores.context import Context


def margin(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`1 − (p₍₁₎ − p₍₂₎)`, the gap between the two largest class probabilities, mean over models; small gap = kept.

    Best versus second best of Joshi et al., "Multi-Class Active Learning for Image Classification", CVPR 2009. It does
    not look at labels.
    """

    def closeness(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        largest = np.partition(softmax(logits, axis=-1), -2, axis=-1)
        return 1 - (largest[..., -1] - largest[..., -2])

    return context.of_models(models, steps, closeness).mean(axis=0)
