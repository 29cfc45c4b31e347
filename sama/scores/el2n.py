"""EL2N: the norm of the error vector, early in training."""

import numpy as np
from scipy.special import softmax

from sama.scores.context import Context


def el2n(context: Context) -> np.ndarray:
    """`E‖softmax(f(x)) − onehot(y)‖₂` over models trained for a few steps; large = hard = kept.

    Paul et al. 2021, "Deep Learning on a Data Diet", section 2. A wrong label makes an example hard, so on noisy labels
    this score keeps the wrong ones: read in reverse it is a detector of them.
    """
    errors = softmax(context.train_models(context.models, context.steps), axis=-1)  # [models, n, classes]
    errors[:, np.arange(len(context.labels)), context.labels] -= 1
    return np.linalg.norm(errors, axis=-1).mean(axis=0)
