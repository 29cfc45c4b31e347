"""What an image source is: class names and up to two parts whose labels are known before a pixel is decoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sama.data.encoded import Locations
from sama.data.images import CorruptImageError, open_encoded
from sama.data.root import below
from sama.errors import SamaError

MOST_CLASSES = 10**6  # beyond, a label is taken to be no class index


@dataclass(frozen=True)
class Picture:
    """One image of a source: held, or a function that gives it encoded; `place` is where it stands, for messages."""

    content: Image.Image | Callable[[], bytes]
    place: str

    def encoded(self) -> bytes:
        """Its bytes as they stand; a `CorruptImageError` where there are none."""
        if isinstance(self.content, Image.Image):
            raise TypeError(f"{self.place}: an image that is held has no encoding")
        return self.content()

    def open(self) -> Image.Image:
        """The decoded image; a `CorruptImageError` where it is corrupt or missing."""
        return self.content if isinstance(self.content, Image.Image) else open_encoded(self.encoded(), self.place)


Reader = Callable[[NDArray[np.int64]], Iterator[Picture]]


@dataclass(frozen=True)
class Part:
    """The n examples of one part; `read(rows)` gives those rows, ascending.

    `encoded`: whether the pictures have bytes of their own; `locations`: where those stand, if reading them there one
    by one is cheap.
    """

    sample_id: NDArray[np.str_]  # [n], unique
    label: NDArray[np.int64]  # [n], what a learner may see
    clean_label: NDArray[np.int64] | None  # [n], where it is known to differ from `label`
    origin: NDArray[np.str_]  # [n], where the image came from; never an absolute path
    read: Reader
    encoded: bool = False
    locations: Locations | None = None

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Source:
    """An opened source: `train` is the pool that is split, `test` the source's own test part, if it has one.

    `channels` is what a null `data.channels` means. Labels index `class_names`.
    """

    class_names: tuple[str, ...]
    channels: int
    train: Part
    test: Part | None = None


@dataclass(frozen=True)
class SourceOptions:
    """What a source may ask the configuration for. `root` is the data root, `path` the folder of this source."""

    name: str
    root: Path | None = None
    path: str | None = None
    label_column: str = "label"
    observed_label_column: str | None = None

    def folder(self, default: str | None = None) -> Path:
        """The folder to read: `path` (else `default`) below the root, or an absolute `path`.

        Raises:
            SamaError: neither is given, there is no data root to look below, or the folder does not exist.
        """
        wanted = self.path if self.path is not None else default
        if wanted is None:
            raise SamaError(f"data.path: source {self.name!r} needs the folder to read, got null")
        folder = below(self.root, wanted, f"source {self.name!r} needs the folder that holds the data sets")
        if not folder.is_dir():
            raise SamaError(
                f"{folder}: no such folder, looked in for source {self.name!r}: data_root (or SAMA_DATA_DIR) sets the "
                "data root, data.path the folder below it"
            )
        return folder


Opener = Callable[[SourceOptions], Source]


def numbered(prefix: str, count: int) -> NDArray[np.str_]:
    """`prefix/00000`, `prefix/00001`, …: ids that sort as their rows do."""
    width = max(5, len(str(max(count - 1, 0))))
    return np.array([f"{prefix}/{row:0{width}d}" for row in range(count)], dtype=np.str_)


def array_part(prefix: str, origin: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Part:
    """A part held in memory: images uint8 [n, height, width] or [n, height, width, 3], labels [n]."""
    sample_id = numbered(prefix, len(labels))

    def read(rows: NDArray[np.int64]) -> Iterator[Picture]:
        for row in rows:
            yield Picture(Image.fromarray(images[row]), str(sample_id[row]))

    return Part(sample_id, labels.astype(np.int64), None, np.full(len(labels), origin), read)


def stored_part(
    folder: Path,
    locations: Locations,
    sample_id: NDArray[np.str_],
    label: NDArray[np.int64],
    clean_label: NDArray[np.int64] | None,
    origin: NDArray[np.str_],
) -> Part:
    """A part whose encoded images stand in files below `folder`."""

    def read(rows: NDArray[np.int64]) -> Iterator[Picture]:
        for row in rows.tolist():
            yield Picture(partial(locations.read, folder, row), str(folder / locations.place(row)))

    return Part(sample_id, label, clean_label, origin, read, encoded=True, locations=locations)


def missing_picture(place: str) -> Picture:
    """A picture that is not there."""

    def refuse() -> bytes:
        raise CorruptImageError(f"{place}: expected an encoded image in bytes, got null")

    return Picture(refuse, place)


def class_names_of(folder: Path, largest: Callable[[], int]) -> tuple[str, ...]:
    """The `listed_class_names` of `folder`; without a list the numbers 0 … `largest()`.

    Raises:
        SamaError: as `listed_class_names`, or the largest label is no class index.
    """
    if (listed := listed_class_names(folder)) is not None:
        return listed
    if (last := largest()) >= MOST_CLASSES:
        raise SamaError(f"{folder}: label {last}: expected class indices 0, 1, … below {MOST_CLASSES}")
    return tuple(str(label) for label in range(last + 1))


def listed_class_names(folder: Path) -> tuple[str, ...] | None:
    """Class names, a line each, of `class_names.txt` in `folder`; None without that file.

    Raises:
        SamaError: a name is empty or stands twice, or there is none.
    """
    path = folder / "class_names.txt"
    if not path.is_file():
        return None
    names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    while names and not names[-1]:
        names.pop()
    for row, name in enumerate(names):
        if not name or name in names[:row]:
            raise SamaError(f"{path}: line {row + 1}: expected a class name of its own, got {name!r}")
    if not names:
        raise SamaError(f"{path}: expected a class name a line, got an empty file")
    return tuple(names)
