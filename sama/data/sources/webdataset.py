"""WebDataset shards: tar files of samples; the files of a sample stand together and share a key.

The key of `a/b.c.jpg` is `a/b`, its field `c.jpg`: the name is cut at the first dot of its last part. A sample has one
image (a field that ends as an image file does) and its label: a number in a field `cls`, or the entry of a field `json`
that `data.label_column` names; `data.observed_label_column` is another entry of `json`. Shards whose name has a
word test (else val, validation) are the test part, those with train, or all where no name says, are the pool. Class
names come from `class_names.txt`, as for parquet. Images are read where they stand.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sama.data.encoded import Locations
from sama.data.sources.base import MOST_CLASSES, Part, Source, SourceOptions, class_names_of, stored_part
from sama.data.sources.image_folder import EXTENSIONS
from sama.errors import SamaError
from sama.metrics import Progress

HELD_OUT = ("test", "val", "validation")


def open_webdataset(options: SourceOptions) -> Source:
    """Labels and places of all samples; the headers of every shard are read, the images are passed over.

    Raises:
        SamaError: no shard, a shard that is damaged or names two parts, a sample without one image and one label, a key
            that stands twice.
    """
    folder = options.folder()
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise SamaError(f"{folder}: expected shards *.tar, found none")
    words = {shard: set(re.split(r"[^a-z]+", shard.stem.lower())) for shard in shards}
    held_out_word = next((word for word in HELD_OUT if any(word in words[shard] for shard in shards)), None)
    held_out = [shard for shard in shards if held_out_word in words[shard]]
    train = [shard for shard in shards if "train" in words[shard]]
    train = train or [shard for shard in shards if not words[shard] & set(HELD_OUT)]
    if not train:
        raise SamaError(f"{folder}: expected shards of a training part (train-*.tar), got {shards[0].name}, …")
    if both := sorted(set(train) & set(held_out)):
        raise SamaError(f"{both[0]}: expected train or {held_out_word} in the name of a shard, got both")
    clean, observed = options.label_column, options.observed_label_column
    pool = _Index(clean, observed)
    other = _Index(clean, None)
    with Progress(len(train) + len(held_out), "read shards") as progress:
        for number, shard in enumerate(train + held_out):
            (pool if number < len(train) else other).add(shard)
            progress.update(number + 1)
    if not pool.keys:
        raise SamaError(f"{folder}: expected samples of an image and its label in {train[0].name}, …, found none")
    class_names = class_names_of(folder, lambda: max(*pool.labels, *pool.clean_labels, *other.labels, 0))
    held_out_part = other.part(folder, "test", class_names) if held_out else None
    return Source(class_names, 3, pool.part(folder, "train", class_names), held_out_part)


@dataclass
class _Index:
    """What is known of the samples of one part."""

    clean: str
    observed: str | None
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    clean_labels: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shards: list[Path] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # of the samples of each shard

    def add(self, shard: Path) -> None:
        """Read the headers and the labels of a shard."""
        for sample in _samples(shard):
            place = f"{shard}: {sample.key}"
            if len(sample.images) != 1:
                raise SamaError(f"{place}: expected one image, got {len(sample.images)}")
            self.keys.append(sample.key)
            self.offsets.append(sample.images[0][0])
            self.lengths.append(sample.images[0][1])
            clean = sample.label(self.clean, place)
            self.labels.append(clean if self.observed is None else sample.label(self.observed, place))
            self.clean_labels.append(clean)
        self.shards.append(shard)
        self.ends.append(len(self.keys))

    def part(self, folder: Path, name: str, class_names: tuple[str, ...]) -> Part:
        counts = np.diff(self.ends, prepend=0)
        shard = np.repeat(np.arange(len(self.shards), dtype=np.int32), counts)
        names = pa.array([path.name for path in self.shards])
        label, clean = (np.array(labels, dtype=np.int64) for labels in (self.labels, self.clean_labels))
        for values in (label, clean):
            outside = np.flatnonzero((values < 0) | (values >= len(class_names)))
            if len(outside):
                at = int(outside[0])
                raise SamaError(
                    f"{self.shards[shard[at]]}: {self.keys[at]}: label {values[at]} is outside the {len(class_names)} "
                    f"classes 0..{len(class_names) - 1}"
                )
        locations = Locations(
            pa.DictionaryArray.from_arrays(shard, names),
            np.array(self.offsets, dtype=np.int64),
            np.array(self.lengths, dtype=np.int64),
        )
        sample_id = _unique_ids(name, self.keys, shard, self.shards)
        origin = np.array([path.name for path in self.shards], dtype=np.str_)[shard]
        return stored_part(folder, locations, sample_id, label, clean if self.observed else None, origin)


def _unique_ids(part: str, keys: list[str], shard: NDArray[np.int32], shards: list[Path]) -> NDArray[np.str_]:
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        if seen.setdefault(key, row) != row:
            first, second = (shards[shard[at]].name for at in (seen[key], row))
            raise SamaError(f"{shards[0].parent}: key {key} stands in {first} and in {second}, expected unique keys")
    return np.array([f"{part}/{key}" for key in keys], dtype=np.str_)


@dataclass
class _Sample:
    key: str
    images: list[tuple[int, int]] = field(default_factory=list)  # offset and length of each
    cls: bytes | None = None
    json: bytes | None = None

    def label(self, name: str, place: str) -> int:
        """The entry `name` of `json`, or where there is none `cls`."""
        value: Any = None
        if self.json is not None:
            try:
                value = json.loads(self.json).get(name)
            except (ValueError, AttributeError) as error:
                raise SamaError(f"{place}.json: expected a JSON object, got {self.json[:40]!r}") from error
        if value is None and self.cls is not None and name == "label":
            try:
                value = int(self.cls)
            except ValueError as error:
                raise SamaError(f"{place}.cls: expected a class index, got {self.cls[:40]!r}") from error
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= MOST_CLASSES:
            wanted = f"a class index {name!r} in its json" + (" or in cls" if name == "label" else "")
            raise SamaError(f"{place}: expected {wanted}, got {value!r}")
        return value


def _samples(shard: Path) -> Iterator[_Sample]:
    """The samples of a shard in its order; files of a sample stand together."""
    sample: _Sample | None = None
    try:
        with tarfile.open(shard, "r:") as archive, shard.open("rb") as content:
            for member in archive:
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                key, dot, rest = name.partition(".")
                extension = rest.rpartition(".")[2].lower()
                if not (member.isfile() and dot and key):
                    continue
                key = f"{folder}{slash}{key}"
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                if f".{extension}" in EXTENSIONS:
                    sample.images.append((member.offset_data, member.size))
                elif extension in ("cls", "json"):
                    content.seek(member.offset_data)
                    setattr(sample, extension, content.read(member.size))
            content.seek(archive.offset)  # a damaged header looks like the end to tarfile, and so does the file's end
            if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"neither a file nor the end of the archive at byte {archive.offset}")
    except (tarfile.TarError, OSError) as error:
        raise SamaError(f"{shard}: not a whole tar file ({error})") from error
    if sample is not None:
        yield sample
