"""AUM: the area under the margin of the observed label."""

import numpy as np

from sama.scores.context import Context


def aum(context: Context, *, epochs: int | None) -> np.ndarray:
    """`mean_t [z_y − max_{c≠y} z_c]` of the logits over the visits of training; large = surely learnt = kept.

    Pleiss et al., "Identifying Mislabeled Data using the Area Under the Margin Ranking", NeurIPS 2020. A wrong label
    is pulled against its neighbours, so its margin is small or negative: the lowest scores are the suspects. The
    paper's threshold samples are not needed for a ranking.
    """
    return context.dynamics("margin", epochs).mean(axis=0, dtype=np.float64)
