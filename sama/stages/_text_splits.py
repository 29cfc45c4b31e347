"""Which text of a source stands in which split of a seed, and the label that it is known by."""

import numpy as np
from numpy.typing import NDArray

from sama.config import TextDataConfig
from sama.data.splits import counted, stratified_splits
from sama.data.texts.base import ABSTAIN, UNKNOWN, TextPart, TextSource
from sama.data.texts.splits import distinct, meta_and_validation
from sama.data.texts.votes import aggregate
from sama.errors import SamaError

TEST_SEED = 20240520  # one test split for all seeds, those of the tuning too: no method is tuned on a test text


def divided(source: TextSource, data: TextDataConfig, seed: int) -> tuple[TextPart, dict[str, TextPart]]:
    """The training part and the others by the name of their split.

    A part that the source has is taken as it is, its validation part divided if `data.meta_set` says so. What it lacks
    is drawn from the training part, from the texts whose clean label is known, if any is: first the test split, the
    same for every seed, then meta and validation by seed. Sizes are counts or fractions of the distinct texts to draw
    from; copies go where the first of them is, so that a split has its size and the copies.

    Raises:
        SamaError: the sizes do not fit, or a part is needed that the source has not.
    """
    sizes = drawn_sizes(source, data)
    held = {} if source.test is None else {"test": source.test}
    if source.validation is not None:
        if data.meta_set in ("divided", "validation_as_both"):
            use = "divided" if data.meta_set == "divided" else "validation_as_both"
            meta, validation = meta_and_validation(source.validation, use=use, meta=data.splits.meta, seed=seed)
            held |= {"validation": validation} | ({"meta": meta} if use == "divided" else {})
        else:
            held["validation"] = source.validation
    if not sizes:
        return source.train, held
    split = _drawn(source.train, sizes, len(source.class_names), seed)
    held |= {name: source.train.take(np.flatnonzero(split == name)) for name in sizes}
    return source.train.take(np.flatnonzero(split == "train")), held


def drawn_sizes(source: TextSource, data: TextDataConfig) -> dict[str, int | float]:
    """The sizes of the splits that are drawn from the training part: none, if the source has all that is asked for.

    Raises:
        SamaError: a part is needed that the source has not.
    """
    sizes: dict[str, int | float] = {}
    if source.test is None:
        if data.splits.test is None:
            raise SamaError(f"data.splits.test: source {data.source} has no test part: expected a size, got null")
        sizes["test"] = data.splits.test
    if data.meta_set == "held_out":
        sizes["meta"] = data.splits.meta
    if source.validation is None:
        if data.meta_set in ("divided", "validation_as_both"):
            raise SamaError(
                f"data.meta_set {data.meta_set}: source {data.source} has no validation part: use held_out or training"
            )
        sizes["validation"] = data.splits.validation
    return sizes


def _drawn(part: TextPart, sizes: dict[str, int | float], classes: int, seed: int) -> NDArray[np.str_]:
    """The split of each text [n] of the training part: `sizes` of its distinct ones, train for the rest."""
    fixed = seen(part, "train", classes, TEST_SEED)
    heads, of = distinct(part, np.flatnonzero(fixed != UNKNOWN))
    counts = {name: counted(size, len(heads)) for name, size in sizes.items()}
    _check_sizes(part, of, sizes, counts)
    split = np.full(len(heads), "train", dtype="<U10")
    for names, by in ((("test",), TEST_SEED), (("meta", "validation"), seed)):
        left = np.flatnonzero(split == "train")
        rows = heads[left]
        label = fixed if by == TEST_SEED else seen(part, "train", classes, seed)
        wanted = {name: counts[name] for name in names if name in counts}
        split[left] = stratified_splits(label[rows], part.sample_id[rows], wanted, by)
    return np.where(of >= 0, split[of], "train")


def _check_sizes(part: TextPart, of: NDArray[np.int64], sizes: dict[str, int | float], counts: dict[str, int]) -> None:
    """Each split has one of the distinct texts that are drawn from, and they leave one to learn from, or a `SamaError`.

    `of` [n] says which of these each text equals, as `distinct` does.
    """
    labelled = int(of.max()) + 1
    for name, size in sizes.items():
        if counts[name] == 0:
            raise SamaError(
                f"data.splits.{name}: {size} of the {labelled} distinct labelled training texts is 0: expected at"
                " least one"
            )
    total = f"data.splits: {_listed(counts)} = {sum(counts.values())} texts"
    if (part.label != UNKNOWN).any() and (of < 0).any():  # texts that are no copies of these remain to learn from
        if sum(counts.values()) > labelled:
            raise SamaError(
                f"{total} are drawn from the distinct training texts whose clean label is known, {labelled} of "
                f"{len(part)}: expected {labelled} texts at most"
            )
    elif sum(counts.values()) >= labelled:
        raise SamaError(f"{total} leave none of the {labelled} distinct labelled training texts to learn from")


def _listed(counts: dict[str, int]) -> str:
    return " + ".join(f"{name} {count}" for name, count in counts.items())


def seen(part: TextPart, name: str, classes: int, seed: int) -> NDArray[np.int64]:
    """The clean labels [n], or, where none is known, the majority of the votes, by lots of `seed` where they tie.

    `UNKNOWN` where others are known, or where all functions abstain: such a text measures nothing.

    Raises:
        SamaError: no text has a label, or a training text without votes has none.
    """
    known = part.label != UNKNOWN
    if known.all() or (known.any() and (part.votes is not None or name != "train")):
        return part.label
    if part.votes is None:
        first = str(part.sample_id[~known][0])
        raise SamaError(
            f"data: {name}: text {first!r} has neither a label nor votes: name data.label_column or data.vote_columns"
        )
    require_vote(part.votes, name)
    found = aggregate(part.votes, part.sample_id, classes, method="majority_vote", uncovered="uniform", seed=seed)
    return np.where(found.covered, found.hard, UNKNOWN)


def require_vote(votes: NDArray[np.int64], name: str) -> None:
    """Some function votes on some text, or a `SamaError`."""
    if not (votes != ABSTAIN).any():
        raise SamaError(f"data: {name}: all {votes.shape[1]} labelling functions abstain on all {len(votes)} texts")
