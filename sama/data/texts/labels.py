"""From what a file writes for a label (a class name, a number, nothing) to indices into the class names."""

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from sama.data.sources.base import listed_class_names
from sama.data.texts.base import ABSTAIN, shown
from sama.errors import SamaError

MOST_CLASSES = 100_000  # a larger number is a column that holds no labels


class Labels:
    """Reads labels of `class_names`: a name, or an index 0 … K - 1, as a number or in digits; true and false are names,
    also of the classes True and False.

    Nothing (null, an empty cell) and -1 are `UNKNOWN` or `ABSTAIN`, which are the same number. Where a class is named
    by a number other than its own index (stars 1 to 5), numbers are names, also the number 2 or 2.0 for '2' and -1 for
    a class '-1'; with `numbers="indices"` (a format whose labels are indices) they are indices all the same.
    """

    def __init__(self, class_names: Sequence[str], numbers: Literal["either", "indices"] = "either") -> None:
        self.class_names = tuple(class_names)
        self._index = {name.strip(): k for k, name in enumerate(self.class_names)}
        self._folded = {name.casefold(): k for name, k in self._index.items()}
        self._by_index = all(whole_number(name) in (None, k) for k, name in enumerate(self.class_names))
        self._always = numbers == "indices"

    def __call__(self, value: object, place: str) -> int:
        """The index of `value`, or a `SamaError` that begins with `place`."""
        if nothing(value):
            return ABSTAIN
        said = _name(value)
        if isinstance(said, str) and said in self._index:
            return self._index[said]
        if isinstance(value, bool) and (folded := str(value).casefold()) in self._folded:
            return self._folded[folded]
        whole = whole_number(said)
        by_index = self._by_index or (self._always and not isinstance(said, str))
        if whole is not None and not by_index and str(whole) in self._index:
            return self._index[str(whole)]
        if whole == ABSTAIN:
            return ABSTAIN
        if whole is None or not by_index or not 0 <= whole < len(self.class_names):
            raise SamaError(f"{place}: label {shown(value)} is outside the {len(self.class_names)} classes {self}")
        return whole

    def __str__(self) -> str:
        names = self.class_names
        return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])}, … {names[-1]}"


def labels_from(folder: Path, values: Iterable[tuple[object, str]], where: Path | str) -> Labels:
    """`Labels` of `class_names.txt` in `folder`; without it those of `values`, each with its place in `where`.

    Names are sorted. Numbers are indices if they are 0 … K - 1, all of them (-1 abstains); or else the names of the
    classes, from the smallest to the largest: stars 1 to 5 are five classes '1' to '5'.

    Raises:
        SamaError: the values are no labels, names and numbers are mixed, all are missing, or they are 1 and -1 alone,
            which may be two classes or one with abstentions.
    """
    if (listed := listed_class_names(folder)) is not None:
        return Labels(listed)
    names: dict[str, str] = {}  # with the place of the first, as below
    numbers: dict[int, str] = {}
    for value, place in values:
        if nothing(value):
            continue
        said = _name(value)
        whole = whole_number(said)
        if whole is not None:
            numbers.setdefault(whole, place)
        elif isinstance(said, str):
            names.setdefault(said, place)
        else:
            raise SamaError(f"{where}: {place}: expected a class name or a whole number as label, got {shown(value)}")
    classes = sorted(number for number in numbers if number != ABSTAIN)
    if names and classes:
        first = min(names)
        raise SamaError(
            f"{where}: {names[first]}: expected class names or numbers as labels, got both: {shown(first)} and "
            f"{classes[0]}"
        )
    if names:
        return Labels(sorted(names))
    if not classes:
        raise SamaError(f"{where}: expected a label or a vote for at least one text, got none")
    for number in (classes[0], classes[-1]):
        if not 0 <= number < MOST_CLASSES:
            raise SamaError(f"{where}: {numbers[number]}: label {shown(number)} is outside 0..{MOST_CLASSES - 1}")
    if set(numbers) == {ABSTAIN, 1}:
        raise SamaError(
            f"{where}: labels 1 and -1 alone: -1 is an abstention, and may be meant for a class: write class names, or "
            f"list the classes in {folder / 'class_names.txt'} (where an abstention is nothing, if -1 is among them)"
        )
    return Labels([str(number) for number in classes])


def nothing(value: object) -> bool:
    """Whether no label is written there: null, or a blank cell."""
    return value is None or (isinstance(value, str) and not value.strip())


def _name(value: object) -> object:
    """Names without blanks around them, true and false as names, all else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.strip() if isinstance(value, str) else value


def whole_number(value: object) -> int | None:
    """The whole number that stands there, also as 2.0 (a column with gaps becomes one of floats) or +1, or None.

    None too for more digits than Python turns into a number, which are no label.
    """
    if isinstance(value, str):
        digits = re.fullmatch(r"([+-]?\d{1,4000})(\.0*)?", value.strip())
        return int(digits[1]) if digits else None
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
