"""The meta weight: what the meta network of SAMA thinks an example is worth."""

import numpy as np

from sama.scores.context import Context


def meta_weight(context: Context) -> np.ndarray:
    """Mean importance weight over the base steps of meta training (Choe et al. 2023, section 4.3).

    The authors average over checkpoints of late epochs; see `docs/deviations.md`.
    """
    return context.meta_weights()
