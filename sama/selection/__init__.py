"""From scores to the kept examples: one strategy a file, each deterministic under ties."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sama.selection.beta import beta
from sama.selection.d2 import d2
from sama.selection.highest import class_balanced, highest
from sama.selection.stratified import stratified
from sama.selection.ties import lots

__all__ = ["STRATEGIES", "keep"]

STRATEGIES = ("global", "class_balanced", "stratified", "d2", "beta")


def keep(
    scores: np.ndarray,
    labels: np.ndarray,
    sample_ids: np.ndarray,
    *,
    pruning_ratio: float,
    strategy: str,
    seed: int = 0,
    hard_end: str | None = None,
    features: np.ndarray | None = None,
    probability: np.ndarray | None = None,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Boolean mask [n] of the examples that stay; `round(pruning_ratio · n)` examples go.

    Which ones does not depend on the order of the rows: ties are broken by lots that are drawn from the sample ids, so
    that they favour no class (ids often start with it) and no place.

    Args:
        scores: float [n]; higher = keep.
        labels: int [n], the observed labels.
        sample_ids: str [n], unique.
        pruning_ratio: fraction removed, in (0, 1).
        strategy: "global" (the highest scores), "class_balanced" (the same fraction of every class), "stratified"
            (CCS), "d2" (message passing) or "beta" (a draw by score and difficulty).
        seed: of the lots and of the draw.
        hard_end: stratified: "high", "low" or None, where the score has its difficult examples.
        features: d2: float [n, d].
        probability: beta: float [n], of the observed label, mean over training.
        options: the strategy's own knobs, see `stratified`, `d2` and `beta`.

    Raises:
        ValueError: the ratio is outside (0, 1) or leaves nothing, a score is not finite, ids repeat, the strategy is
            unknown, or it lacks what it needs.
    """
    if not 0.0 < pruning_ratio < 1.0:
        raise ValueError(f"expected a pruning ratio in (0, 1), got {pruning_ratio}")
    if not np.isfinite(scores).all():
        worst = np.flatnonzero(~np.isfinite(scores))[0]
        raise ValueError(f"the score of {sample_ids[worst]} is {scores[worst]}, expected a finite number")
    if len(np.unique(sample_ids)) != len(sample_ids):
        raise ValueError("sample ids repeat: expected each example once")
    ticket = lots(sample_ids, seed)
    budget = len(scores) - round(pruning_ratio * len(scores))
    options = options or {}
    if strategy == "global":
        mask = highest(scores, ticket, budget)
    elif strategy == "class_balanced":
        mask = class_balanced(scores, labels, ticket, pruning_ratio)
    elif strategy == "stratified":
        mask = stratified(scores, ticket, budget, hard_end=hard_end, **options)
    elif strategy == "d2":
        if features is None:
            raise ValueError("the strategy d2 needs features of the examples, got none")
        mask = d2(scores, features, ticket, budget, **options)
    elif strategy == "beta":
        if probability is None:
            raise ValueError("the strategy beta needs the probabilities of the labels in training, got none")
        mask = beta(scores, probability, ticket, budget, pruning_ratio=pruning_ratio, seed=seed, **options)
    else:
        raise ValueError(f"unknown selection strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if not mask.any():
        raise ValueError(f"pruning {pruning_ratio} of {len(scores)} examples leaves none")
    return mask
