"""The meta weight: what the meta network of SAMA thinks an example is worth."""

import numpy as np

from sama.scores.context import Context


def meta_weight(context: Context) -> np.ndarray:
    """Mean importance weight over the base steps of meta training.

    Choe et al., "Making Scalable Meta Learning Practical", NeurIPS 2023; they average over checkpoints of late epochs,
    see `docs/deviations.md`. Serves both `meta_weight`, whose network sees loss and uncertainty unless configured
    otherwise (SAMA), and `meta_weight_loss`, whose network sees the loss alone (as in Shu et al., "Meta-Weight-Net:
    Learning an Explicit Mapping For Sample Weighting", NeurIPS 2019): they differ in the meta training.
    """
    return context.meta_weights()
