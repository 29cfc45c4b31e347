"""What a text source is: class names and up to four parts of texts, each with clean labels, weak votes, or both."""

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sama.data.root import below
from sama.errors import SamaError

UNKNOWN = -1  # a label that is not known
ABSTAIN = -1  # the vote of a labelling function that has nothing to say


@dataclass(frozen=True)
class TextPart:
    """The n examples of one part.

    `label` is the clean label, `votes` what m labelling functions (rules, crowds, a single weak label column: m = 1)
    say. Where there are votes, learners see those, and labels serve for meta sets and evaluation alone.
    """

    sample_id: NDArray[np.str_]  # [n], unique
    text: tuple[str, ...]  # n, none blank
    label: NDArray[np.int64]  # [n], UNKNOWN where it is not known
    votes: NDArray[np.int64] | None = None  # [n, m], ABSTAIN where a function abstains

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> "TextPart":
        """The examples at these positions, in this order."""
        votes = None if self.votes is None else self.votes[rows]
        return TextPart(self.sample_id[rows], tuple(self.text[row] for row in rows.tolist()), self.label[rows], votes)


@dataclass(frozen=True)
class TextSource:
    """An opened source: `train` is the (weakly labelled) pool; `labeled` a tiny clean set that came apart from it.

    Labels and votes index `class_names`. `facts` counts what the source did to its files, such as stripped leaks.
    """

    class_names: tuple[str, ...]
    train: TextPart
    validation: TextPart | None = None
    test: TextPart | None = None
    labeled: TextPart | None = None
    functions: tuple[str, ...] | None = None  # m names of the labelling functions, where they are known
    facts: Mapping[str, int] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, TextPart]:
        """The parts that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test, "labeled": self.labeled}
        return {name: part for name, part in found.items() if part is not None}


@dataclass(frozen=True)
class TextOptions:
    """What a text source may be asked for. `root` is the data root, `path` a folder, a file, or a name on a hub.

    `vote_columns` are columns of weak labels; `label_column` is the clean one, and null says that there is none.
    `strip_prefix` is explained in `wrench.py`; `subset` is the configuration of a hub data set.
    """

    name: str
    root: Path | None = None
    path: str | None = None
    text_column: str = "text"
    label_column: str | None = "label"
    vote_columns: tuple[str, ...] = ()
    id_column: str | None = None
    strip_prefix: bool | None = None
    subset: str | None = None

    def place(self) -> Path:
        """The file or folder to read: `path` below the root, or an absolute `path`.

        Raises:
            SamaError: no path, a relative path without a root, or nothing stands there.
        """
        if self.path is None:
            raise SamaError(f"data.path: source {self.name!r} needs the file or folder to read, got null")
        place = below(self.root, self.path, f"source {self.name!r} needs the folder that {self.path!r} stands in")
        if not place.exists():
            raise SamaError(
                f"{place}: no such file or folder, looked in for source {self.name!r}: data_root (or SAMA_DATA_DIR) "
                "sets the data root, data.path what to read below it"
            )
        return place


TextOpener = Callable[[TextOptions], TextSource]


def make_part(
    where: Path | str,
    sample_id: Sequence[str],
    places: Sequence[str],
    text: Sequence[object],
    label: Sequence[int],
    votes: Sequence[Sequence[int]] | None,
) -> TextPart:
    """A part from what a file says of its n examples; `places` say where each stands in it, for messages.

    Raises:
        SamaError: no example, an id that stands twice, a text that is no string or blank, unequal numbers of votes.
    """
    if not len(sample_id):
        raise SamaError(f"{where}: expected at least one text, got none")
    seen: dict[str, str] = {}
    for name, place, content in zip(sample_id, places, text, strict=True):
        if name in seen:
            raise SamaError(f"{where}: {place}: expected an id of its own, got {name!r}, which {seen[name]} has")
        seen[name] = place
        if not isinstance(content, str):
            raise SamaError(f"{where}: {place}: expected a text, got {shown(content)}")
        if not content.strip():
            raise SamaError(f"{where}: {place}: expected a text, got an empty one")
        if any("\ud800" <= character <= "\udfff" for character in content):  # JSON can write half of a pair
            raise SamaError(f"{where}: {place}: expected Unicode, got half of a surrogate pair in {shown(content)}")
    table = None
    if votes is not None:
        for place, row in zip(places, votes, strict=True):
            if len(row) != len(votes[0]):
                raise SamaError(f"{where}: {place}: expected {len(votes[0])} votes, as {places[0]} has, got {len(row)}")
        table = np.array(votes, dtype=np.int64).reshape(len(sample_id), -1)
    texts = tuple(content for content in text if isinstance(content, str))
    return TextPart(np.array(sample_id, dtype=np.str_), texts, np.array(label, dtype=np.int64), table)


def make_source(
    class_names: tuple[str, ...],
    parts: Mapping[str, TextPart],
    functions: tuple[str, ...] | None = None,
    facts: Mapping[str, int] | None = None,
) -> TextSource:
    """The source of these parts by name; `train` must be among them."""
    train, *held_out = (parts.get(name) for name in ("train", "validation", "test", "labeled"))
    if train is None:
        raise ValueError(f"expected a part 'train', got {', '.join(parts)}")
    return TextSource(class_names, train, *held_out, functions=functions, facts=facts or {})


def same_functions(source: TextSource, where: Path | str) -> TextSource:
    """The source, if all parts that have votes have as many (and as many as `functions` names), or a `SamaError`."""
    counts = {name: part.votes.shape[1] for name, part in source.parts.items() if part.votes is not None}
    if source.functions is not None:
        counts = {"the list of functions": len(source.functions)} | counts
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise SamaError(f"{where}: expected as many votes for each text in every part, got {listed}")
    if 0 in counts.values():
        return without_votes(source)
    return source


def without_votes(source: TextSource) -> TextSource:
    """The source with clean labels alone."""
    bare = {name: replace(part, votes=None) for name, part in source.parts.items()}
    return replace(source, functions=None, **bare)


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        SamaError: the file is missing or not UTF-8 (with the line of the first wrong byte).
    """
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SamaError(f"{path}: line {line}: expected UTF-8, got the byte 0x{content[error.start]:02x}") from error


def shown(value: object) -> str:
    """A value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
