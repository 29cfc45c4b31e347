"""EL2N: the norm of the error vector, early in training; and its reverse, a detector of wrong labels."""

import numpy as np
from scipy.special import softmax

from sama.scores.context import Context


def el2n(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`E‖softmax(f(x)) − onehot(y)‖₂` over models trained for a few steps; large = hard = kept.

    Paul et al. 2021, "Deep Learning on a Data Diet", section 2. A wrong label makes an example hard, so on noisy labels
    this score keeps the wrong ones.
    """
    errors = softmax(context.train_models(models, steps), axis=-1)  # [models, n, classes]
    errors[:, np.arange(len(context.labels)), context.labels] -= 1
    return np.linalg.norm(errors, axis=-1).mean(axis=0)


def el2n_reversed(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`−EL2N`: what is learnt first is kept.

    The noise-aware baseline, as in small-loss selection (Han et al. 2018, "Co-teaching"): early in training a network
    fits right labels before wrong ones. On clean labels it keeps the easiest examples, which is poor pruning.
    """
    return -el2n(context, models=models, steps=steps)
