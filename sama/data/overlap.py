"""What stands in two splits at once: the same content under two ids.

It works on fingerprints, so that it serves images (hash of the stored pixels) and texts (hash of the normalised text)
alike.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXAMPLES = 20


def fingerprint(content: bytes) -> bytes:
    """16 bytes that stand for the content (BLAKE2b); prefix what distinguishes equal bytes, such as a shape."""
    return hashlib.blake2b(content, digest_size=16).digest()


def overlap_report(
    fingerprints: Sequence[bytes], sample_id: NDArray[np.str_], split: NDArray[np.str_], names: Sequence[str]
) -> dict[str, Any]:
    """For each pair of the splits `names`, as `first/second`, what they share.

    Each entry is `{"shared": contents that stand in both, "first": examples of the first split that have such a
    content, "second": those of the second, "examples": up to 20 pairs of ids}`; a content gives one pair, its first ids
    in order. Entries stand for all pairs, zero or not.
    """
    members: dict[bytes, dict[str, list[str]]] = defaultdict(dict)
    times = Counter(fingerprints)
    repeated = [i for i, content in enumerate(fingerprints) if times[content] > 1]
    for i in sorted(repeated, key=lambda i: sample_id[i]):
        members[fingerprints[i]].setdefault(str(split[i]), []).append(str(sample_id[i]))
    report: dict[str, Any] = {}
    for first, second in combinations(names, 2):
        shared = [(held[first], held[second]) for held in members.values() if first in held and second in held]
        shared.sort()
        report[f"{first}/{second}"] = {
            "shared": len(shared),
            first: sum(len(left) for left, _ in shared),
            second: sum(len(right) for _, right in shared),
            "examples": [[left[0], right[0]] for left, right in shared[:EXAMPLES]],
        }
    return report
