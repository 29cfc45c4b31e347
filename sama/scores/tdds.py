"""TDDS: how unevenly an example contributes along the training, late visits counting most."""

import numpy as np

from sama.scores.context import Context
from sama.scores.dynamics import over_windows


def tdds(context: Context, *, window: int, epochs: int | None, decay: float) -> np.ndarray:
    """`Σ_k β(1−β)^{K−k} ‖d_k − mean(d_k)‖₂`; large = kept.

    `d_k` holds the J−1 divergences `KL(p_{t+1} ‖ p_t)` between the J predictions of window k of K, `β` = `decay`.
    Zhang et al., "Spanning Training Progress: Temporal Dual-Depth Scoring (TDDS) for Enhanced Dataset Pruning", CVPR
    2024, J = `window`, on the first `epochs` epochs. `KL` is the divergence; public code sums the absolute values of
    its terms.

    Raises:
        ValueError: the window has fewer than three predictions, for two give one divergence, which cannot vary; or more
            than there are.
    """
    divergence = context.dynamics("divergence", epochs)
    if not 3 <= window <= len(divergence):
        raise ValueError(f"expected a window of 3 to {len(divergence)} predictions, got {window}")
    norms = over_windows(  # the first visit has no prediction before it
        divergence[1:], window - 1, lambda d: np.linalg.norm(d - d.mean(axis=-1, keepdims=True), axis=-1)
    )
    age = np.arange(len(norms))[::-1]
    return (decay * (1 - decay) ** age) @ norms
