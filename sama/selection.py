"""From scores to the kept examples."""

import numpy as np

STRATEGIES = ("global", "class_balanced")


def keep(
    scores: np.ndarray, labels: np.ndarray, sample_ids: np.ndarray, *, pruning_ratio: float, strategy: str
) -> np.ndarray:
    """Boolean mask [n] of the examples that stay: the highest scores, ties broken by sample id.

    `round(pruning_ratio · n)` examples go: overall (`global`) or in each class by its own n (`class_balanced`).

    Args:
        scores: float [n]; higher = keep.
        labels: int [n], the observed labels.
        sample_ids: str [n], unique.
        pruning_ratio: fraction removed, in (0, 1).
        strategy: "global" or "class_balanced".

    Raises:
        ValueError: the ratio is outside (0, 1), a score is NaN, ids repeat, or the strategy is unknown.
    """
    if not 0.0 < pruning_ratio < 1.0:
        raise ValueError(f"expected a pruning ratio in (0, 1), got {pruning_ratio}")
    if np.isnan(scores).any():
        raise ValueError(f"the score of {sample_ids[np.isnan(scores)][0]} is NaN")
    if len(np.unique(sample_ids)) != len(sample_ids):
        raise ValueError("sample ids repeat: expected each example once")
    if strategy == "global":
        groups = [np.arange(len(scores))]
    elif strategy == "class_balanced":
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    else:
        raise ValueError(f"unknown selection strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    mask = np.ones(len(scores), dtype=bool)
    for group in groups:
        order = group[np.lexsort((sample_ids[group], scores[group]))]
        mask[order[: round(pruning_ratio * len(group))]] = False
    if not mask.any():
        raise ValueError(f"pruning {pruning_ratio} of {len(scores)} examples leaves none")
    return mask
