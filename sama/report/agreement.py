"""How much two scores agree: rank correlation of their scores, and the share of a kept list that the other keeps too.

Both are reduced to one number a pair, seed by seed, so that the scores of all methods are held for one seed at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata


@dataclass(frozen=True)
class Agreement:
    """Agreement of m methods over s seeds.

    Attributes:
        methods: their names.
        correlation: [s, m, m], Spearman's ρ of their scores; NaN where a score is the same for all examples.
        shared: ratio -> [s, m, m], share of the kept list (`shared_fraction`); NaN where one was not pruned so.
        kept_fraction: ratio -> mean fraction of the training examples that is kept.
    """

    methods: tuple[str, ...]
    correlation: NDArray[np.float64]
    shared: dict[float, NDArray[np.float64]]
    kept_fraction: dict[float, float]


def rank_correlation(scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Spearman's ρ of each pair, ties at their mean rank; NaN where a score is constant. m scores [n] -> [m, m]."""
    ranks = np.stack([rankdata(score) for score in scores])
    ranks -= ranks.mean(axis=1, keepdims=True)
    length = np.sqrt((ranks**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.clip(ranks @ ranks.T / np.outer(length, length), -1.0, 1.0)


def shared_fraction(kept: Mapping[str, NDArray[np.bool_]], methods: Sequence[str]) -> NDArray[np.float64]:
    """|A ∩ B| over the mean size of the kept lists A and B. Masks [n] by method -> [m, m]; NaN where there is none.

    For lists of one size it is the part of one that stands in the other; random lists share the kept fraction k on
    average, and any two share max(0, 2 − 1/k) at least. (Dice's coefficient s; Jaccard's index is s / (2 − s).)
    """
    masks = np.stack(list(kept.values())).astype(np.float64)
    size = masks.sum(axis=1)
    table = np.full((len(methods), len(methods)), np.nan)
    places = [methods.index(method) for method in kept]
    table[np.ix_(places, places)] = 2 * (masks @ masks.T) / (size[:, None] + size)
    return table


def least_shared(kept_fraction: float) -> float:
    """What two lists that keep this fraction of the same examples must share."""
    return max(0.0, 2 - 1 / kept_fraction)


def by_likeness(correlation: NDArray[np.float64]) -> list[int]:
    """An order of the m methods that brings those of similar ranks together: average linkage on 1 − ρ.

    Of the two directions, the one with the first method nearer to the front. correlation: [m, m].
    """
    count = len(correlation)
    if count < 3:
        return list(range(count))
    distance = 1 - np.nan_to_num(correlation).round(6)
    np.fill_diagonal(distance, 0.0)
    order = leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True)).tolist()
    return order if order.index(0) < count / 2 else order[::-1]


def pairs(methods: Sequence[str], values: NDArray[np.float64]) -> list[tuple[float, str, str]]:
    """(value, one, other) of each pair whose value is known, ascending."""
    rows, others = np.tril_indices(len(methods), -1)
    found = [(float(values[i, j]), methods[j], methods[i]) for i, j in zip(rows.tolist(), others.tolist(), strict=True)]
    return sorted(pair for pair in found if not np.isnan(pair[0]))


def spaced(ratios: Sequence[float], count: int = 3) -> list[float]:
    """At most `count` of the ratios: the lowest, the highest and some evenly between."""
    places = np.linspace(0, len(ratios) - 1, min(count, len(ratios)))
    return [ratios[int(place + 0.5)] for place in places]
