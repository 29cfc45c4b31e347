"""What labelling functions say together: coverage, overlap and conflict, and one label a text out of many votes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sama.data.texts.base import ABSTAIN, UNKNOWN
from sama.data.texts.dawid_skene import dawid_skene
from sama.errors import SamaError

Uncovered = Literal["drop", "uniform"]


def vote_counts(votes: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """How many of the m functions vote for each class, [n, classes], of votes [n, m] in 0..classes-1 or `ABSTAIN`.

    Raises:
        ValueError: votes are not [n, m], or one is outside.
    """
    if votes.ndim != 2:
        raise ValueError(f"expected votes [texts, functions], got {list(votes.shape)}")
    wrong = np.argwhere((votes >= classes) | (votes < ABSTAIN))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"text {row}, function {column}: expected a vote in 0..{classes - 1} or {ABSTAIN}, got {votes[row, column]}"
        )
    return np.stack([(votes == k).sum(axis=1) for k in range(classes)], axis=1)


def majority_vote(votes: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """The share of a text's votes that each class has, [n, classes]; uniform where all functions abstain."""
    counts = vote_counts(votes, classes).astype(np.float64)
    counts[counts.sum(axis=1) == 0] = 1.0
    return counts / counts.sum(axis=1, keepdims=True)


def _dawid_skene(votes: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    vote_counts(votes, classes)  # checks them
    return dawid_skene(votes, classes).posterior


Aggregator = Callable[[NDArray[np.int64], int], NDArray[np.float64]]
AGGREGATORS: MappingProxyType[str, Aggregator] = MappingProxyType(
    {"majority_vote": majority_vote, "dawid_skene": _dawid_skene}
)


@dataclass(frozen=True)
class Aggregated:
    """One label for each of the k texts that were kept."""

    rows: NDArray[np.int64]  # [k], positions of these texts among the n that were given, ascending
    soft: NDArray[np.float64]  # [k, classes], rows sum to 1
    hard: NDArray[np.int64]  # [k], the largest of `soft`
    covered: NDArray[np.bool_]  # [k], whether any function votes on the text


def aggregate(
    votes: NDArray[np.int64],
    sample_id: NDArray[np.str_],
    classes: int,
    *,
    method: str,
    uncovered: Uncovered = "drop",
    seed: int = 0,
) -> Aggregated:
    """Soft and hard labels by `method`, one of `AGGREGATORS`.

    Texts on which all functions abstain are left out (`drop`) or have the uniform distribution (`uniform`), whatever
    the method would say of them. Ties for the hard label are broken by a lot drawn from the text's id and `seed`, so
    that it favours no class and does not depend on which other texts there are: taking the first class would, with
    many ties, turn its number into a prior.

    Raises:
        SamaError: no function votes on any text.
        ValueError: a vote outside the classes, or no such method or policy.
    """
    if method not in AGGREGATORS:
        raise ValueError(f"expected a method of {', '.join(AGGREGATORS)}, got {method!r}")
    if uncovered not in ("drop", "uniform"):
        raise ValueError(f"expected uncovered to be drop or uniform, got {uncovered!r}")
    covered = (votes != ABSTAIN).any(axis=1)
    if not covered.any():
        raise SamaError(f"votes: all {votes.shape[1]} labelling functions abstain on all {len(votes)} texts")
    soft = AGGREGATORS[method](votes, classes)
    soft[~covered] = 1.0 / classes
    rows = np.flatnonzero(covered) if uncovered == "drop" else np.arange(len(votes))
    return Aggregated(rows, soft[rows], _hard(soft[rows], sample_id[rows], seed), covered[rows])


def _hard(soft: NDArray[np.float64], sample_id: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    tied = soft == soft.max(axis=1, keepdims=True)
    hard = tied.argmax(axis=1)
    key = str(seed).encode()
    for row in np.flatnonzero(tied.sum(axis=1) > 1).tolist():
        lot = hashlib.blake2b(str(sample_id[row]).encode(), digest_size=8, key=key).digest()
        candidates = np.flatnonzero(tied[row])
        hard[row] = candidates[int.from_bytes(lot, "little") % len(candidates)]
    return hard


def vote_report(
    votes: NDArray[np.int64],
    label: NDArray[np.int64],
    class_names: Sequence[str],
    functions: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Fractions of the n texts (Ratner et al., 2017, arXiv:1711.10160), of all functions and of each.

    coverage: some function votes (of one function: it votes); overlap: at least two vote (it and another);
    conflict: two votes differ (it and another differ); accuracy: of the votes of a function on texts whose label is
    known, those that are right, null without such votes. `majority_accuracy` is that of the majority vote on covered
    texts, where a tie of t classes that has the right one among them counts as 1/t of a right answer; `classes` are
    those that a function votes for.
    """
    counts = vote_counts(votes, len(class_names))
    total = counts.sum(axis=1)
    conflict = (counts > 0).sum(axis=1) > 1
    known = label != UNKNOWN
    judged = known & (total > 0)
    leading = counts == counts.max(axis=1, keepdims=True)
    right = leading[judged, label[judged]] / leading[judged].sum(axis=1)
    each = []
    for column in range(votes.shape[1]):
        mine = votes[:, column]
        votes_here, scored = mine != ABSTAIN, known & (mine != ABSTAIN)
        each.append(
            {
                "name": str(column) if functions is None else functions[column],
                "classes": [class_names[k] for k in np.unique(mine[votes_here]).tolist()],
                "coverage": float(votes_here.mean()),
                "overlap": float((votes_here & (total > 1)).mean()),
                "conflict": float((votes_here & conflict).mean()),
                "accuracy": float((mine == label)[scored].mean()) if scored.any() else None,
            }
        )
    return {
        "texts": len(votes),
        "coverage": float((total > 0).mean()),
        "overlap": float((total > 1).mean()),
        "conflict": float(conflict.mean()),
        "majority_accuracy": float(right.mean()) if judged.any() else None,
        "functions": each,
    }
