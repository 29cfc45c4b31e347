"""From what a file writes for a label (a class name, an index, nothing) to indices into the class names."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from sama.data.sources.base import listed_class_names
from sama.data.texts.base import ABSTAIN, shown
from sama.errors import SamaError

MOST_CLASSES = 100_000  # a larger index is a column that holds no labels


class Labels:
    """Reads labels of `class_names`: a name, or an index 0 … K - 1, as a number or in digits.

    Nothing (null, an empty cell) and -1 are `UNKNOWN` or `ABSTAIN`, which are the same number. Digits are an index only
    where no class is itself named by digits other than its own index.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self._index = {name: k for k, name in enumerate(self.class_names)}
        self._by_digits = all(_whole(name) in (None, k) for k, name in enumerate(self.class_names))

    def __call__(self, value: object, place: str) -> int:
        """The index of `value`, or a `SamaError` that begins with `place`."""
        if _nothing(value):
            return ABSTAIN
        if isinstance(value, str) and value.strip() in self._index:
            return self._index[value.strip()]
        whole = _whole(value) if self._by_digits or not isinstance(value, str) else None
        if whole == ABSTAIN:
            return ABSTAIN
        if whole is None or not 0 <= whole < len(self.class_names):
            raise SamaError(f"{place}: label {shown(value)} is outside the {len(self.class_names)} classes {self}")
        return whole

    def __str__(self) -> str:
        names = self.class_names
        return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, … {names[-1]}"


def labels_from(folder: Path, values: Iterable[object], where: Path | str) -> Labels:
    """`Labels` of `class_names.txt` in `folder`; without it those of `values`: 0 … largest, or the sorted names.

    Raises:
        SamaError: the values are no labels, names and numbers are mixed, or all are missing.
    """
    if (listed := listed_class_names(folder)) is not None:
        return Labels(listed)
    given = [value.strip() if isinstance(value, str) else value for value in values if not _nothing(value)]
    strange = [value for value in given if not isinstance(value, str) and _whole(value) is None]
    if strange:
        raise SamaError(f"{where}: expected class names or whole numbers as labels, got {shown(strange[0])}")
    whole = {value: _whole(value) for value in given}
    names = sorted(str(value) for value, index in whole.items() if index is None)
    indices = sorted(index for index in whole.values() if index is not None and index != ABSTAIN)
    if names and indices:
        raise SamaError(f"{where}: expected class names or numbers as labels, got both: {names[0]!r} and {indices[0]}")
    if names:
        return Labels(names)
    if not indices:
        raise SamaError(f"{where}: expected a label or a vote for at least one text, got none")
    if indices[0] < 0 or indices[-1] >= MOST_CLASSES:
        wrong = indices[0] if indices[0] < 0 else indices[-1]
        raise SamaError(f"{where}: label {wrong} is outside 0..{MOST_CLASSES - 1}")
    return Labels([str(k) for k in range(indices[-1] + 1)])


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _whole(value: object) -> int | None:
    """The whole number that stands there, also as 2.0 (a column with gaps becomes one of floats), or null."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value) if value.strip().removesuffix(".0").lstrip("-").isdecimal() else None
        except ValueError:
            return None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None
