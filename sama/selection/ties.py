"""Lots that break ties."""

import hashlib

import numpy as np


def lots(sample_ids: np.ndarray, seed: int) -> np.ndarray:
    """Rank [n] of each example in a shuffled order that is a function of the set of ids and the seed.

    A hash of the id, not the id itself: ids often begin with the class or the folder, and would favour it.
    """
    key = str(seed).encode()
    digests = [hashlib.blake2b(name.encode(), digest_size=16, key=key).digest() for name in sample_ids.tolist()]
    ranks = np.empty(len(digests), dtype=np.int64)
    ranks[np.argsort(np.array(digests, dtype="S16"))] = np.arange(len(digests))
    return ranks
