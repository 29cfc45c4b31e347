"""Prototype distance: how far an example is from the nearest cluster of its kind."""

import numpy as np

from sama.scores.context import Context


def prototype(context: Context, *, clusters: int | None) -> np.ndarray:
    """`1 − max_k cos(h(x), c_k)`, centroids `c_k` of k-means on the features h of unit length; far = hard = kept.

    Sorscher et al. 2022, "Beyond neural scaling laws", section 5. There h is self-supervised (SwAV); here it is the
    penultimate layer of the observed training, so labels enter through the model. `clusters` None: as many as classes.

    Raises:
        ValueError: there are more clusters than examples.
    """
    from sklearn.cluster import KMeans  # half a second that other scores do not wait for

    clusters = clusters or len(np.unique(context.labels))
    if clusters > len(context.labels):
        raise ValueError(f"expected at most {len(context.labels)} clusters, one an example, got {clusters}")
    order = np.argsort(context.sample_ids)  # k-means++ draws by place
    features = unit_length(context.features()[order])
    clustering = KMeans(clusters, n_init=10, random_state=context.seed)  # pyright: ignore[reportArgumentType]
    centroids = clustering.fit(features).cluster_centers_
    distances = np.empty(len(order))
    distances[order] = 1 - (features @ unit_length(centroids).T).max(axis=-1)
    return distances


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, d] divided by their 2-norms, in float64; a zero row stays zero."""
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
