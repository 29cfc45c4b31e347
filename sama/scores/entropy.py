"""Entropy: how undecided a trained model is over all classes."""

import numpy as np
from scipy.special import entr, softmax

from sama.scores.context import Context


def entropy(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`−Σ_c p_c ln p_c` in nats, mean over models; undecided = kept.

    Maximum-entropy selection, as in Coleman et al., "Selection via Proxy: Efficient Data Selection for Deep Learning",
    ICLR 2020. It does not look at labels.
    """

    def entropies(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return entr(softmax(logits, axis=-1)).sum(axis=-1)

    return context.of_models(models, steps, entropies).mean(axis=0)
