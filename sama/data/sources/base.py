"""What an image source is: class names and up to two parts whose labels are known before a pixel is decoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sama.errors import SamaError

Decoder = Callable[[NDArray[np.int64]], Iterator[tuple[Image.Image, str]]]


@dataclass(frozen=True)
class Part:
    """The n examples of one part; `read(rows)` decodes those rows, ascending, as (image, the place it stands)."""

    sample_id: NDArray[np.str_]  # [n], unique
    label: NDArray[np.int64]  # [n], what a learner may see
    clean_label: NDArray[np.int64] | None  # [n], where it is known to differ from `label`
    origin: NDArray[np.str_]  # [n], where the image came from; never an absolute path
    read: Decoder

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
        if not Path(wanted).is_absolute() and self.root is None:
            raise SamaError(
                f"data_root: source {self.name!r} needs the folder that holds the data sets, got null: set data_root "
                "in the config or SAMA_DATA_DIR in the environment"
            )
        folder = Path(self.root or "") / wanted
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

    def read(rows: NDArray[np.int64]) -> Iterator[tuple[Image.Image, str]]:
        for row in rows:
            yield Image.fromarray(images[row]), str(sample_id[row])

    return Part(sample_id, labels.astype(np.int64), None, np.full(len(labels), origin), read)
