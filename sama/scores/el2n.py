"""EL2N: the norm of the error vector, early in training; and its reverse, a detector of wrong labels."""

import numpy as np
from scipy.special import softmax

from sama.scores.context import Context


def el2n(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`E‖softmax(f(x)) − onehot(y)‖₂` over models trained for a few steps; large = hard = kept.

    Paul et al., "Deep Learning on a Data Diet: Finding Important Examples Early in Training", NeurIPS 2021. A wrong
    label makes an example hard, so on noisy labels this score keeps the wrong ones.
    """
    return context.of_models(models, steps, _error_norms).mean(axis=0)


def el2n_reversed(context: Context, *, models: int, steps: int) -> np.ndarray:
    """`−EL2N`: what is learnt first is kept.

    The noise-aware baseline, as in small-loss selection (Han et al., "Co-teaching: Robust Training of Deep Neural
    Networks with Extremely Noisy Labels", NeurIPS 2018): early in training a network fits right labels before wrong
    ones. On clean labels it keeps the easiest examples, which is poor pruning.
    """
    return -el2n(context, models=models, steps=steps)


def _error_norms(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    errors = softmax(logits, axis=-1)
    errors[np.arange(len(labels)), labels] -= 1
    return np.linalg.norm(errors, axis=-1)
