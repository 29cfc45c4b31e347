"""The meta weight: what the meta network of SAMA thinks an example is worth."""

import numpy as np

from sama.scores.context import Context


def meta_weight(context: Context) -> np.ndarray:
    """Mean importance weight over the base steps of meta training (Choe et al. 2023, section 4.3).

    Serves both `meta_weight`, whose network sees loss and uncertainty unless configured otherwise (SAMA), and
    `meta_weight_loss`, whose network sees the loss alone (as in Shu et al. 2019, "Meta-Weight-Net"): they differ in the
    meta training. The authors average over checkpoints of late epochs; see `docs/deviations.md`.
    """
    return context.meta_weights()
