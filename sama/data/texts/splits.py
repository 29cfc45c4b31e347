"""The validation split of a weakly labelled data set, and what stands in two splits at once."""

import unicodedata
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from sama.data.overlap import fingerprint, overlap_report
from sama.data.splits import stratified_splits
from sama.data.texts.base import UNKNOWN, TextPart
from sama.errors import SamaError

ValidationUse = Literal["divided", "validation_as_both"]


def meta_and_validation(
    validation: TextPart, *, use: ValidationUse, meta: int | float, seed: int
) -> tuple[TextPart, TextPart]:
    """The clean meta set, and the set that models are chosen on, of a source's validation split.

    divided: two disjoint, class-stratified parts by seed; `meta` is the size of the first, a count or a fraction of the
    split (rounded half up). validation_as_both: the whole split is both, as in the paper's experiments on WRENCH;
    `meta` and `seed` are not used. Models are then chosen on texts that the meta loss was taken on.

    Raises:
        SamaError: a text without a known label, or a size that leaves one of the two without a text.
    """
    unknown = np.flatnonzero(validation.label == UNKNOWN)
    if len(unknown):
        first = str(validation.sample_id[unknown[0]])
        raise SamaError(
            f"data.splits: validation: expected clean labels, got none of text {first!r} ({len(unknown)} of "
            f"{len(validation)})"
        )
    if use == "validation_as_both":
        return validation, validation
    if use != "divided":
        raise ValueError(f"expected use to be divided or validation_as_both, got {use!r}")
    size = meta if isinstance(meta, int) else int(meta * len(validation) + 0.5)
    if not 0 < size < len(validation):
        raise SamaError(
            f"data.splits.meta: {meta} of the {len(validation)} validation texts is {size}: expected at least one for "
            "the meta set and one to choose models on"
        )
    split = stratified_splits(validation.label, validation.sample_id, {"meta": size}, seed)
    return validation.take(np.flatnonzero(split == "meta")), validation.take(np.flatnonzero(split != "meta"))


def normalised(text: str) -> str:
    """The text without what seldom tells texts apart: case, kinds of space, invisible and variant characters."""
    shown = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().split())


def text_overlap(parts: Mapping[str, TextPart]) -> dict[str, Any]:
    """`overlap_report` of the normalised texts, for each pair of these parts in their order."""
    contents = [fingerprint(normalised(text).encode()) for part in parts.values() for text in part.text]
    sample_id = np.concatenate([part.sample_id for part in parts.values()])
    split = np.repeat(list(parts), [len(part) for part in parts.values()])
    return overlap_report(contents, sample_id, split, list(parts))
