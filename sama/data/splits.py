"""Disjoint, class-stratified splits of exact sizes, and class-balanced subsets.

Both look at the labels of the source that a learner may see, never at clean labels hidden behind them, and at
`sample_id`, never at the order in which the examples come.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sama.data.seeding import generator
from sama.errors import SamaError

SUBSET_SEED = 20231209  # one subset for all seeds of an experiment: they then differ in splits and noise alone


def split_sizes(
    pool: int,
    meta: int | float,
    validation: int | float,
    test: int | float | None,
    *,
    meta_set: str,
    source: str,
    has_test: bool,
) -> dict[str, int]:
    """How many examples of the pool go to test, validation and meta, as counts; the rest is train.

    `test` null means the source's own test part, and no key here; with `meta_set` training there is no key meta.
    A fraction is of the pool, rounded half up.

    Raises:
        SamaError: `test` is null for a source without a test part, or nothing is left for train.
    """
    if test is None and not has_test:
        raise SamaError(
            f"data.splits.test: null means the source's own test part, but source {source!r} has none: set a count or "
            "a fraction of the pool"
        )
    wanted = {"test": test, "validation": validation, "meta": None if meta_set == "training" else meta}
    sizes = {name: counted(size, pool) for name, size in wanted.items() if size is not None}
    if sum(sizes.values()) >= pool:
        listed = " + ".join(f"{name} {size}" for name, size in sizes.items())
        raise SamaError(
            f"data.splits: {listed} = {sum(sizes.values())} examples leave none of the pool of {pool} for train"
        )
    return sizes


def counted(size: int | float, pool: int) -> int:
    """A count as it is, a fraction of the pool rounded half up."""
    return size if isinstance(size, int) else int(size * pool + 0.5)


def stratified_splits(
    label: NDArray[np.int64], sample_id: NDArray[np.str_], sizes: Mapping[str, int], seed: int
) -> NDArray[np.str_]:
    """The split name of each example [n]: `sizes[name]` of each named split, train for the rest.

    Each split has every class in proportion (largest remainders; ties to the lower class), drawn at random in it.
    """
    rng = generator("split", seed)
    by_id = np.argsort(sample_id, kind="stable")
    order = by_id[rng.permutation(len(by_id))]
    queues = _by_class(order, label)
    taken = np.zeros(len(queues), dtype=np.int64)
    split = np.full(len(label), "train", dtype="<U10")
    for name, size in sizes.items():
        left = np.array([len(queue) for queue in queues]) - taken
        share = proportional(left, size)
        for queue, start, count in zip(queues, taken, share, strict=True):
            split[queue[start : start + count]] = name
        taken += share
    return split


def _by_class(order: NDArray[np.int64], label: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The positions `order` of each class, 0 to the largest label, in their order."""
    sorted_order = order[np.argsort(label[order], kind="stable")]
    return np.split(sorted_order, np.cumsum(np.bincount(label))[:-1])


def proportional(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """`size` shared out in proportion to `counts` by largest remainders, never more than `counts` [classes]."""
    if not 0 <= size <= counts.sum():
        raise ValueError(f"expected a size between 0 and {counts.sum()}, got {size}")
    if size == 0:
        return np.zeros_like(counts)
    floor, remainder = np.divmod(counts * size, counts.sum())
    rest = size - int(floor.sum())
    floor[np.argsort(-remainder, kind="stable")[:rest]] += 1
    return floor


def balanced_subset(label: NDArray[np.int64], sample_id: NDArray[np.str_], size: int | None) -> NDArray[np.int64]:
    """Ascending positions of `size` examples, as equal in number a class as the classes allow; null: all of them.

    A class with fewer than its share is taken whole and the others make up for it. The draw depends on the ids alone.
    """
    if size is None or size >= len(label):
        return np.arange(len(label))
    counts = np.bincount(label)
    share = even(counts, size)
    by_id = np.argsort(sample_id, kind="stable")
    order = by_id[generator("subset", SUBSET_SEED).permutation(len(by_id))]
    chosen = [queue[:count] for queue, count in zip(_by_class(order, label), share, strict=True)]
    return np.sort(np.concatenate(chosen))


def even(counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """`size` shared out as evenly as `counts` allow [classes]; what does not divide goes to the lower classes."""
    share = np.zeros_like(counts)
    while (rest := size - int(share.sum())) > 0:
        open_classes = np.flatnonzero(share < counts)
        if not len(open_classes):
            raise ValueError(f"expected a size of at most {counts.sum()}, got {size}")
        step = max(rest // len(open_classes), 1)
        grow = open_classes[:rest]
        share[grow] = np.minimum(share[grow] + step, counts[grow])
    return share


def check_classes(
    label: NDArray[np.int64], split: NDArray[np.str_], class_names: Sequence[str], names: Sequence[str]
) -> None:
    """Every split of `names` has an example of every class, or a `SamaError` naming class, split and counts."""
    for name in names:
        counts = np.bincount(label[split == name], minlength=len(class_names))
        absent = np.flatnonzero(counts == 0)
        if len(absent):
            everywhere = int(np.sum(label == absent[0]))
            raise SamaError(
                f"data.splits: class {class_names[absent[0]]!r} has no example in split {name!r} ({counts.sum()} "
                f"examples of {np.count_nonzero(counts)} classes; {everywhere} of this class over all splits, "
                f"{len(class_names)} classes expected): make the split larger or leave the class out"
            )
