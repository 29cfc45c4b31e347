"""Random pruning: the baseline that every score has to beat."""

import numpy as np

from sama.scores.context import Context


def random(context: Context) -> np.ndarray:
    """Independent uniform numbers in [0, 1), one an example, by seed and place in the sorted ids."""
    values = np.empty(len(context.sample_ids))
    values[np.argsort(context.sample_ids)] = np.random.default_rng([context.seed, 0x5A3A]).random(len(values))
    return values
