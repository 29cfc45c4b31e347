"""Prototype distance: how far an example is from the nearest cluster of its kind."""

import numpy as np

from sama.scores.context import Context


def prototype(
    context: Context, *, clusters: int | None, encoder: str | None, encoder_weights: str | None
) -> np.ndarray:
    """`1 − max_k cos(h(x), c_k)`, centroids `c_k` of k-means on the features h of unit length; far = hard = kept.

    Sorscher et al., "Beyond neural scaling laws: beating power law scaling via data pruning", NeurIPS 2022. There h is
    self-supervised; `encoder` names a pretrained timm model to take it from. None: h is the penultimate layer of the
    observed training, so labels, and their errors, enter through the model. `clusters` None: as many as classes.

    Raises:
        ValueError: there are more clusters than examples.
    """
    from sklearn.cluster import KMeans  # half a second that other scores do not wait for
    from threadpoolctl import threadpool_limits

    clusters = clusters or len(np.unique(context.labels))
    if clusters > len(context.labels):
        raise ValueError(f"expected at most {len(context.labels)} clusters, one an example, got {clusters}")
    order = np.argsort(context.sample_ids)  # k-means++ draws by place
    features = unit_length(context.features(encoder, encoder_weights)[order])
    clustering = KMeans(clusters, n_init=10, random_state=context.seed)  # pyright: ignore[reportArgumentType]
    with threadpool_limits(1):  # more threads add up the centroids in the order in which they come by
        similarity = (features @ unit_length(clustering.fit(features).cluster_centers_).T).max(axis=-1)
    distances = np.empty(len(order))
    distances[order] = np.maximum(1 - similarity, 0)  # a rounded cosine may exceed 1
    return distances


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows [n, d] divided by their 2-norms, in float64; a zero row stays zero."""
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1.0)
