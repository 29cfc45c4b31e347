"""The validation split of a weakly labelled data set, equal texts in one split, and what stands in two at once."""

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sama.data.overlap import fingerprint, overlap_report
from sama.data.splits import counted, stratified_splits
from sama.data.texts.base import UNKNOWN, TextPart
from sama.errors import SamaError

ValidationUse = Literal["divided", "validation_as_both"]


def meta_and_validation(
    validation: TextPart, *, use: ValidationUse, meta: int | float, seed: int
) -> tuple[TextPart, TextPart]:
    """The clean meta set, and the set that models are chosen on, of a source's validation split.

    divided: two disjoint, class-stratified parts by seed; `meta` is the size of the first, a count or a fraction of the
    distinct texts whose label is known (rounded half up); copies go where the first of them is, and texts without a
    label into the second part. validation_as_both: the whole split is both, as in the paper's experiments on WRENCH;
    `meta` and `seed` are not used. Models are then chosen on texts that the meta loss was taken on.

    Raises:
        SamaError: no label is known, or a size leaves one of the two without a text.
    """
    known = np.flatnonzero(validation.label != UNKNOWN)
    if not len(known):
        raise SamaError(
            f"data.splits: validation: expected clean labels, got none for {len(validation)} texts: name "
            "data.label_column, or set data.meta_set to held_out"
        )
    if use == "validation_as_both":
        return validation, validation
    if use != "divided":
        raise ValueError(f"expected use to be divided or validation_as_both, got {use!r}")
    heads, of = distinct(validation, known)
    which = "" if len(heads) == len(validation) else "labelled, distinct "
    size = counted(meta, len(heads))
    if not 0 < size < len(heads):
        raise SamaError(
            f"data.splits.meta: {meta} of the {len(heads)} {which}validation texts is {size}: expected at least one "
            "for the meta set and one to choose models on"
        )
    split = stratified_splits(validation.label[heads], validation.sample_id[heads], {"meta": size}, seed)
    is_meta = (of >= 0) & (split[of] == "meta")
    return validation.take(np.flatnonzero(is_meta)), validation.take(np.flatnonzero(~is_meta))


def distinct(part: TextPart, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [k], ascending, of the first (by id) of each text that stands among `rows`, and for each text of the
    part [n] which of these it equals (`normalised`), -1 for none."""
    contents = [normalised(text) for text in part.text]
    first: dict[str, int] = {}
    for row in rows[np.argsort(part.sample_id[rows], kind="stable")].tolist():
        first.setdefault(contents[row], row)
    heads = np.sort(np.array(list(first.values()), dtype=np.int64))
    place = {contents[row]: k for k, row in enumerate(heads.tolist())}
    return heads, np.array([place.get(content, -1) for content in contents], dtype=np.int64)


def normalised(text: str) -> str:
    """The text without what seldom tells texts apart: case, kinds of space, invisible and variant characters."""
    if text.isascii():  # has none of the last two
        return " ".join(text.casefold().split())
    shown = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().split())


def fingerprints(parts: Mapping[str, TextPart]) -> dict[str, bytes]:
    """Id -> what equal texts (`normalised`) share, in the order of the parts."""
    return {
        sample_id: fingerprint(normalised(text).encode())
        for part in parts.values()
        for sample_id, text in zip(part.sample_id.tolist(), part.text, strict=True)
    }


def text_overlap(parts: Mapping[str, TextPart]) -> dict[str, Any]:
    """`overlap_report` of the normalised texts, for each pair of these parts in their order."""
    contents = list(fingerprints(parts).values())
    sample_id = np.concatenate([part.sample_id for part in parts.values()])
    split = np.repeat(list(parts), [len(part) for part in parts.values()])
    return overlap_report(contents, sample_id, split, list(parts))
