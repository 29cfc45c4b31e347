"""Forgetting: how often an example was learnt and lost again."""

import numpy as np

from sama.scores.context import Context


def forgetting(context: Context, *, epochs: int | None) -> np.ndarray:
    """Number of visits t with `correct_{t−1}` and not `correct_t`; often forgotten = kept.

    Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019: an example
    is judged when training presents it, and is correct if the observed label alone has the largest logit. One that was
    never correct has no such event; as in the paper it counts as forgotten most: its score is the number of visits,
    which no count of events reaches.
    """
    correct = context.dynamics("margin", epochs) > 0
    events = (correct[:-1] & ~correct[1:]).sum(axis=0)
    return np.where(correct.any(axis=0), events, len(correct)).astype(np.float64)
