"""CCS: as many examples from each range of difficulty as it can give."""

import numpy as np

from sama.selection.highest import highest


def stratified(
    scores: np.ndarray,
    ticket: np.ndarray,
    budget: int,
    *,
    strata: int,
    hard_cutoff: float,
    hard_end: str | None,
) -> np.ndarray:
    """CCS of Zheng et al., "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023.

    First the hardest `round(hard_cutoff · n)` examples go (β; among them are the wrong labels). The range of the other
    scores is cut into `strata` of equal width, and the budget is dealt from the smallest stratum to the largest: each
    gives an equal part of what is left, or all it has. Within a stratum the lot decides.

    Args:
        scores: float [n].
        ticket: int [n], lots.
        budget: how many stay.
        strata: number of ranges, 50 in the paper.
        hard_cutoff: β in [0, 1).
        hard_end: "high" or "low": where the score has its hard examples. None: it has no hard end, and nothing is cut.

    Returns:
        Mask [n].

    Raises:
        ValueError: the cutoff leaves fewer examples than the budget.
    """
    mask = np.zeros(len(scores), dtype=bool)
    rest = np.arange(len(scores))
    cut = round(hard_cutoff * len(scores)) if hard_end else 0
    if len(scores) - cut < budget:
        raise ValueError(
            f"a hard cutoff of {hard_cutoff} leaves {len(scores) - cut} examples, expected {budget} to keep"
        )
    if cut:
        rest = np.flatnonzero(~highest(scores if hard_end == "high" else -scores, ticket, cut))
    low, high = scores[rest].min(), scores[rest].max()
    width = (high - low) / strata or 1.0  # all scores equal: one stratum
    stratum = np.minimum(((scores[rest] - low) / width).astype(np.int64), strata - 1)
    counts = np.bincount(stratum, minlength=strata)
    waiting = [int(k) for k in np.argsort(counts, kind="stable") if counts[k]]
    for place, k in enumerate(waiting):
        share = min(int(counts[k]), budget // (len(waiting) - place))
        budget -= share
        members = rest[stratum == k]
        mask[members[np.argsort(ticket[members])[:share]]] = True
    return mask
