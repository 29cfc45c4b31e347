"""Hub-style parquet: `train-*.parquet` and `test-*.parquet` (else `validation-*.parquet`) in one folder.

Columns: `image`, a struct of `bytes` (an encoded image) and `path`; an integer label; optionally a second, observed
label (human or crawled), which learners then see in place of the clean one. Class names: `class_names.txt` beside the
files (a line a class), else the numbers up to the largest label of the training files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sama.data.sources.base import Part, Picture, Source, SourceOptions, class_names_of, missing_picture, numbered
from sama.errors import SamaError

READ_AT_ONCE = 256  # encoded images held in memory while they are decoded


@dataclass(frozen=True)
class _File:
    path: Path
    first: int  # row of the part at which this file begins
    count: int


def open_parquet(options: SourceOptions) -> Source:
    """Labels of all rows, images decoded when read. The test part has its clean label alone.

    Raises:
        SamaError: no training file, a missing or wrongly typed column, a missing label, a label outside the classes.
    """
    folder = options.folder()
    files = sorted(folder.glob("train-*.parquet"))
    if not files:
        raise SamaError(f"{folder}: expected files train-*.parquet, found none")
    held_out = sorted(folder.glob("test-*.parquet")) or sorted(folder.glob("validation-*.parquet"))
    clean, observed = options.label_column, options.observed_label_column

    def largest() -> int:
        columns = [clean] if observed is None else [clean, observed]
        return max(int(_labels(path, column, None).max(initial=0)) for path in files for column in columns)

    class_names = class_names_of(folder, largest)
    train = _part(files, clean, observed, class_names)
    return Source(class_names, 3, train, _part(held_out, clean, None, class_names) if held_out else None)


def _part(paths: list[Path], clean: str, observed: str | None, class_names: tuple[str, ...]) -> Part:
    files: list[_File] = []
    ids, labels, clean_labels = [], [], []
    for path in paths:
        _check_image_column(path)
        labels.append(_labels(path, observed or clean, class_names))
        clean_labels.append(_labels(path, clean, class_names) if observed else labels[-1])
        ids.append(numbered(path.name, len(labels[-1])))
        files.append(_File(path, sum(file.count for file in files), len(labels[-1])))

    def read(rows: NDArray[np.int64]) -> Iterator[Picture]:
        for file in files:
            wanted = rows[(rows >= file.first) & (rows < file.first + file.count)] - file.first
            yield from _pictures(file.path, wanted)

    return Part(
        sample_id=np.concatenate(ids),
        label=np.concatenate(labels),
        clean_label=np.concatenate(clean_labels) if observed else None,
        origin=np.concatenate([np.full(file.count, file.path.name) for file in files]),
        read=read,
        encoded=True,
    )


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SamaError(f"{path}: not a whole parquet file ({' '.join(str(error).split())})") from error


def _check_image_column(path: Path) -> None:
    with _open(path) as opened:
        schema = opened.schema_arrow
    if "image" not in schema.names:
        raise SamaError(f"{path}: expected a column 'image', got {', '.join(schema.names)}")
    kind = schema.field("image").type
    held = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
    if held is None or not (pa.types.is_binary(held) or pa.types.is_large_binary(held)):
        raise SamaError(f"{path}: column 'image': expected a struct of bytes and path, got {kind}")


def _labels(path: Path, column: str, class_names: tuple[str, ...] | None) -> NDArray[np.int64]:
    """One label column, int64 [rows of the file], each within the classes (0 or more where they are not known yet)."""
    with _open(path) as opened:
        schema = opened.schema_arrow
        if column not in schema.names:
            raise SamaError(f"{path}: expected a column {column!r}, got {', '.join(schema.names)}")
        kind = schema.field(column).type
        if not pa.types.is_integer(kind):
            raise SamaError(f"{path}: column {column!r}: expected whole numbers (class indices), got {kind}")
        values = opened.read(columns=[column]).column(column).combine_chunks()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise SamaError(f"{path}: row {row}: column {column!r}: expected a class index, got null")
    labels = values.to_numpy(zero_copy_only=False).astype(np.int64)
    wrong = labels < 0 if class_names is None else (labels < 0) | (labels >= len(class_names))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        classes = f"{len(class_names)} classes 0..{len(class_names) - 1}" if class_names else "classes 0, 1, …"
        raise SamaError(f"{path}: row {row}: column {column!r}: label {labels[row]} is outside the {classes}")
    return labels


def _pictures(path: Path, rows: NDArray[np.int64]) -> Iterator[Picture]:
    """The images of the wanted rows, ascending, a few in memory at a time."""
    if not len(rows):
        return
    with _open(path) as opened:
        first = 0
        for batch in opened.iter_batches(batch_size=READ_AT_ONCE, columns=["image"]):
            inside = rows[(rows >= first) & (rows < first + batch.num_rows)]
            images = batch.column("image").take(pa.array(inside - first)).to_pylist() if len(inside) else []
            for row, image in zip(inside.tolist(), images, strict=True):
                place = f"{path}: row {row}"
                content = None if image is None else image["bytes"]
                yield (
                    missing_picture(f"{place}: column 'image'")
                    if content is None
                    else Picture(partial(bytes, content), place)
                )
            first += batch.num_rows
