"""What a stage reads of the prepared data: `load` -> `Dataset` -> `split` -> `Split`.

`manifest.parquet` has one row an example; `manifest.json` beside it has what concerns the whole. Pixels stay in
`images.npy`, a read-only memory map, or encoded where `images.parquet` says: a stage pays only for the images that it
asks for.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sama.data.encoded import EncodedImages, open_index
from sama.errors import SamaError
from sama.files import read_json, read_parquet

SPLITS = ("train", "meta", "validation", "test")
Pixels = NDArray[np.uint8] | EncodedImages
COLUMNS = ("sample_id", "split", "label", "source", "row")


@dataclass(frozen=True)
class Split:
    """The n examples of one split, sorted by `sample_id`."""

    name: str
    sample_id: NDArray[np.str_]  # [n]
    label: NDArray[np.int64]  # [n], what a learner may see
    clean_label: NDArray[np.int64] | None  # [n], for evaluation only; None where nothing is known beyond the label
    rows: NDArray[np.int64]  # [n], rows of `pixels`
    pixels: Pixels = field(repr=False)  # [all, channels, height, width], shared by all splits

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> Pixels:
        """The images of this split, uint8 [n, channels, height, width]; see `images_of`."""
        return self.images_of(np.arange(len(self)))

    def images_of(self, index: NDArray[np.int64]) -> Pixels:
        """The images of some examples of this split: decoded ones are read into memory, encoded ones are not."""
        if isinstance(self.pixels, EncodedImages):
            return self.pixels.only(self.rows[index])
        return np.asarray(self.pixels[self.rows[index]])


@dataclass(frozen=True)
class Dataset:
    """All examples of one seed, sorted by `sample_id`, with what a stage needs to know of the whole."""

    sample_id: NDArray[np.str_]  # [n]
    split_name: NDArray[np.str_]  # [n]
    label: NDArray[np.int64]  # [n]
    clean_label: NDArray[np.int64] | None  # [n]
    source: NDArray[np.str_]  # [n]
    rows: NDArray[np.int64]  # [n], rows of `pixels`
    pixels: Pixels = field(repr=False)  # [n, channels, height, width]: a read-only memory map, or decoded when read
    class_names: tuple[str, ...]
    channel_mean: tuple[float, ...]  # of the train split, one a channel, pixels in [0, 1]
    channel_std: tuple[float, ...]  # at least one grey level (1/255), so that dividing by it is safe
    meta_set: str  # clean_held_out, noisy_held_out or training
    content_hash: str  # of ids, splits, labels and pixels
    path: Path  # of the manifest, for messages

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that have examples, in the order train, meta, validation, test."""
        present = set(np.unique(self.split_name).tolist())
        return tuple(name for name in SPLITS if name in present)

    def split(self, name: str) -> Split:
        """The examples of split `name`.

        Raises:
            SamaError: no example has this split.
        """
        index = split_rows(self.split_name, name, where=self.path)
        clean = None if self.clean_label is None else self.clean_label[index]
        return Split(name, self.sample_id[index], self.label[index], clean, self.rows[index], self.pixels)

    def meta_split(self) -> Split:
        """The examples that the meta loss is taken on: split meta, or train where `meta_set` is training."""
        return self.split("train" if self.meta_set == "training" else "meta")


def split_rows(split_name: NDArray[np.str_], name: str, where: Path | str = "manifest") -> NDArray[np.int64]:
    """Positions of the examples whose split is `name`, ascending; a `SamaError` where there is none."""
    index = np.flatnonzero(split_name == name)
    if not len(index):
        present = ", ".join(split for split in SPLITS if split in split_name) or "none"
        raise SamaError(f"{where}: no example has split {name!r}, got splits {present}")
    return index


def load(images_path: Path, manifest_path: Path, *, data_root: Path | None = None, workers: int = 1) -> Dataset:
    """Open the images and one seed's `manifest.parquet` (with the `manifest.json` beside it).

    Args:
        images_path: images.npy, or the index images.parquet.
        manifest_path: as above.
        data_root: folder that holds the data sets, where the images stay encoded in theirs.
        workers: threads that decode them.

    Raises:
        SamaError: a file or a column is missing, a split is unknown, ids are not unique, a label lies outside the
            classes, or the rows do not fit the images. Clean labels are never checked: no learner depends on them.
    """
    manifest_path = Path(manifest_path)
    known = read_json(manifest_path.with_suffix(".json"))
    frame = read_manifest(manifest_path)
    pixels = open_pixels(images_path, data_root, workers)
    try:
        class_names = tuple(known["class_names"])
        mean, std = tuple(known["channel_mean"]), tuple(known["channel_std"])
        meta_set, content_hash = known["meta_set"], known["content_hash"]
    except KeyError as error:
        raise SamaError(f"{manifest_path.with_suffix('.json')}: expected a key {error.args[0]!r}") from error
    label = frame["label"].to_numpy(np.int64)
    _check_range(manifest_path, frame, "label", label, len(class_names), f"{len(class_names)} classes")
    rows = frame["row"].to_numpy(np.int64)
    _check_range(manifest_path, frame, "row", rows, len(pixels), f"{len(pixels)} images in {images_path}")
    return Dataset(
        sample_id=frame["sample_id"].to_numpy(str),
        split_name=frame["split"].to_numpy(str),
        label=label,
        clean_label=frame["clean_label"].to_numpy(np.int64) if "clean_label" in frame else None,
        source=frame["source"].to_numpy(str),
        rows=rows,
        pixels=pixels,
        class_names=class_names,
        channel_mean=mean,
        channel_std=std,
        meta_set=meta_set,
        content_hash=content_hash,
        path=manifest_path,
    )


def read_manifest(path: Path) -> pd.DataFrame:
    """The table alone, one row an example, sorted by `sample_id`; `clean_label` stands only where it is known.

    Raises:
        SamaError: the file or a column is missing, an id stands twice, or a split is none of `SPLITS`.
    """
    path = Path(path)
    frame = read_parquet(path, list(COLUMNS))
    if "clean_label" in pq.read_schema(path).names:
        frame.insert(3, "clean_label", read_parquet(path, ["clean_label"])["clean_label"])
    check_unique(frame, where=str(path))
    strange = frame[~frame["split"].isin(SPLITS)]
    if len(strange):
        got = strange.iloc[0]
        raise SamaError(f"{path}: {got['sample_id']}: expected a split of {', '.join(SPLITS)}, got {got['split']!r}")
    return frame.sort_values("sample_id", ignore_index=True)


def check_unique(frame: pd.DataFrame, where: str) -> None:
    """No `sample_id` stands twice, or a `SamaError` that names one."""
    twice = frame.loc[frame["sample_id"].duplicated(), "sample_id"].tolist()
    if twice:
        raise SamaError(f"{where}: expected unique sample ids, got {twice[0]!r} twice")


def open_pixels(path: Path, data_root: Path | None, workers: int) -> Pixels:
    """`open_images` of an array file, `open_index` of an index (`.parquet`)."""
    return open_index(path, data_root, workers) if Path(path).suffix == ".parquet" else open_images(path)


def open_images(path: Path) -> NDArray[np.uint8]:
    """`images.npy` as a read-only memory map, uint8 [n, channels, height, width].

    Raises:
        SamaError: the file is missing, no such array, or cut short.
    """
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except (OSError, ValueError) as error:
        raise SamaError(f"{path}: not a whole array file ({error})") from error
    if images.ndim != 4 or images.dtype != np.uint8:
        raise SamaError(f"{path}: expected uint8 [n, channels, height, width], got {images.dtype} {list(images.shape)}")
    return images


def _check_range(
    path: Path, frame: pd.DataFrame, column: str, values: NDArray[np.int64], count: int, expected: str
) -> None:
    outside = np.flatnonzero((values < 0) | (values >= count))
    if len(outside):
        where = frame["sample_id"].iloc[outside[0]]
        raise SamaError(f"{path}: {where}: {column} {values[outside[0]]} is outside the {expected}")
