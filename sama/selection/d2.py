"""D2 pruning: difficulty that neighbours share, and that a kept example takes away from its own."""

import heapq

import numpy as np


def d2(
    scores: np.ndarray,
    features: np.ndarray,
    ticket: np.ndarray,
    budget: int,
    *,
    neighbors: int,
    gamma_forward: float,
    gamma_reverse: float,
) -> np.ndarray:
    """Message passing on the graph of nearest neighbours.

    Maharana et al., "D2 Pruning: Message Passing for Balancing Diversity and Difficulty in Data Pruning", ICLR 2024.

    Forward: `s_i ← s_i + Σ_{j∈N(i)} exp(−γ_f d_ij²) s_j`. Then, `budget` times, the example k of highest s is kept and
    sends to those of its neighbours that are not kept `s_j ← s_j − exp(−γ_r d_kj²) s_k`.

    Scores are mapped to [0, 1] first (a message has to have a sign: higher = keep), and features to unit length, so
    that one γ serves every model: `d²` is in [0, 4]. An edge joins two examples of which one is among the `neighbors`
    nearest of the other. Needs all pairwise distances, chunk by chunk: O(n²) time.

    Returns:
        Mask [n].

    Raises:
        ValueError: a feature vector is not finite.
    """
    from sklearn.neighbors import kneighbors_graph  # half a second that other strategies do not wait for

    if not np.isfinite(features).all():
        raise ValueError("features are not finite")
    order = np.argsort(ticket)  # computed in the order of the lots, so that no sum depends on the order of the rows
    units = features[order].astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    nearest = kneighbors_graph(units, min(neighbors, len(units) - 1), mode="connectivity", metric="euclidean")
    graph = nearest.maximum(nearest.T).tocsr()
    graph.sort_indices()
    start, targets = graph.indptr, graph.indices
    sources = np.repeat(np.arange(len(units)), np.diff(start))
    pieces = np.array_split(np.arange(len(sources)), len(sources) // 2**16 + 1)  # all differences at once are edges × d
    squared = np.concatenate([np.square(units[sources[p]] - units[targets[p]]).sum(axis=-1) for p in pieces])

    values = scores[order].astype(np.float64)
    spread = np.ptp(values)
    values = (values - values.min()) / spread if spread else np.ones(len(values))
    messages = np.exp(-gamma_forward * squared) * values[targets]
    values = values + np.bincount(sources, weights=messages, minlength=len(values))

    back = np.exp(-gamma_reverse * squared)
    kept = np.zeros(len(values), dtype=bool)
    heap = [(-value, -place) for place, value in enumerate(values.tolist())]  # of equals, the higher ticket
    heapq.heapify(heap)
    left = budget
    while left:
        negative, place = heapq.heappop(heap)
        place = -place
        if kept[place] or -negative != values[place]:
            continue  # an entry from before a message
        kept[place] = True
        left -= 1
        edges = slice(start[place], start[place + 1])
        for target, weight in zip(targets[edges].tolist(), back[edges].tolist(), strict=True):
            if not kept[target]:
                values[target] -= weight * values[place]
                heapq.heappush(heap, (-values[target], -target))
    mask = np.zeros(len(values), dtype=bool)
    mask[order[kept]] = True
    return mask
