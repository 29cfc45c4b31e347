"""Entropy: how undecided a trained model is over all classes."""

import numpy as np
from scipy.special import entr, softmax

from sama.scores.context import Context


def entropy(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`−Σ_c p_c ln p_c` in nats, mean over models; undecided = kept.

    Maximum-entropy selection of Coleman et al. 2020, "Selection via Proxy", section 2.2. It does not look at labels.
    """
    return entr(softmax(context.train_models(models, steps), axis=-1)).sum(axis=-1).mean(axis=0)
