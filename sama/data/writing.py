"""The images of a source as files: decoded in an array, or an index of where they stand encoded."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sama.data.encoded import EncodedImages, Locations, in_order
from sama.data.images import CorruptImageError, check_range, open_encoded, to_pixels
from sama.data.overlap import fingerprint
from sama.data.sources import Part, Picture
from sama.errors import SamaError
from sama.files import atomic, write_table
from sama.metrics import Progress

Result = TypeVar("Result")
WORKERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)

CHUNK = 2**24  # values of pixels in memory at a time, 8 bytes each and twice


class Written(NamedTuple):
    """What `write_images` wrote: the shape of one image, a fingerprint of each, and which of those asked for it has."""

    image_shape: tuple[int, int, int]
    fingerprints: list[bytes]
    decoded: NDArray[np.bool_]  # [asked for], False where an image was corrupt and skipped


def write_images(
    path: Path,
    parts: list[tuple[Part, NDArray[np.int64]]],
    channels: int,
    image_size: int | None,
    skip_corrupt: bool = False,
) -> Written:
    """Decode the chosen rows of each part, in order, into one array file uint8 [n, channels, height, width].

    Images go to the disk one after another (never through a memory map, where a full disk kills the process). With
    `skip_corrupt` the file has no row for an image that cannot be decoded.

    Raises:
        SamaError: a corrupt image (skipping: nothing but corrupt images), or, with `image_size` null, one of another
            size than the first.
    """
    count = sum(len(rows) for _, rows in parts)
    shape: tuple[int, ...] | None = None
    fingerprints: list[bytes] = []
    decoded: list[bool] = []

    def decode(picture: Picture) -> NDArray[np.uint8]:
        return to_pixels(picture.open(), channels, image_size, picture.place)

    with atomic(path) as temporary, temporary.open("wb") as stream:
        for picture, pixels in _each(parts, decode, skip_corrupt, "decode images"):
            decoded.append(pixels is not None)
            if pixels is None:
                continue
            if shape is None:
                shape = pixels.shape
                _write_header(stream, (count, *shape))
            elif pixels.shape != shape:
                raise SamaError(
                    f"{picture.place}: expected {_size(shape)} pixels like the images before, got "
                    f"{_size(pixels.shape)}: set data.image_size to bring all to one size"
                )
            content = pixels.tobytes()
            stream.write(content)
            fingerprints.append(fingerprint(content))
        if len(decoded) != count:
            raise RuntimeError(f"{path}: expected {count} images from the source, got {len(decoded)}")
        if shape is None:
            raise SamaError(f"data.corrupt_images: none of the {count} images can be decoded")
        stream.seek(0)
        _write_header(stream, (len(fingerprints), *shape))
    return Written((shape[0], shape[1], shape[2]), fingerprints, np.array(decoded))


def _each(
    parts: list[tuple[Part, NDArray[np.int64]]],
    function: Callable[[Picture], Result],
    skip_corrupt: bool,
    description: str,
) -> Iterator[tuple[Picture, Result | None]]:
    """Every chosen picture, in order, with what `function` gives for it (by threads); None for one to be skipped."""

    def tried(picture: Picture) -> tuple[Picture, Result | None]:
        try:
            return picture, function(picture)
        except CorruptImageError:
            if skip_corrupt:
                return picture, None
            raise

    pictures = (picture for part, rows in parts for picture in part.read(rows))
    with Progress(sum(len(rows) for _, rows in parts), description) as progress:
        for done, found in enumerate(in_order(tried, pictures, WORKERS), start=1):
            progress.update(done)
            yield found


def write_index(
    path: Path,
    parts: list[tuple[Part, NDArray[np.int64]]],
    channels: int,
    image_size: int,
    folder: str,
    skip_corrupt: bool = False,
    check: bool = True,
) -> Written:
    """Write `images.parquet`, where the chosen rows of each part stand encoded, in order.

    Images that are cheap to read one by one stay where they are, below `folder`; others are copied, as they are
    encoded, one after another into `images.bin` beside the index. With `check` every image is read and decoded once, so
    that a corrupt one is found now; fingerprints are those of the encoded bytes, and without `check` there are none.

    Raises:
        SamaError: a source without encoded images; a corrupt image (skipping: nothing but corrupt images).
    """
    if not all(part.encoded for part, _ in parts):
        raise SamaError("data.storage: this source has no encoded images, set decoded")
    stay = [part.locations.only(rows) for part, rows in parts if part.locations is not None]
    if len(stay) == len(parts):
        return _index_of_files(path, parts, stay, (channels, image_size), folder, skip_corrupt, check)
    return _packed(path, parts, (channels, image_size), skip_corrupt)


def _index_of_files(
    path: Path,
    parts: list[tuple[Part, NDArray[np.int64]]],
    stay: list[Locations],
    form: tuple[int, int],
    folder: str,
    skip_corrupt: bool,
    check: bool,
) -> Written:
    decoded = np.ones(sum(map(len, stay)), dtype=np.bool_)
    fingerprints: list[bytes] = []
    if check:
        for row, (_, found) in enumerate(_each(parts, _checked, skip_corrupt, "check images")):
            decoded[row] = found is not None
            if found is not None:
                fingerprints.append(found[1])
    files = pa.chunked_array([locations.file.cast(pa.string()) for locations in stay]).filter(pa.array(decoded))
    offset, length = (np.concatenate([getattr(at, name) for at in stay])[decoded] for name in ("offset", "length"))
    return _write_index(path, files, offset, length, form, folder, (fingerprints, decoded))


def _packed(
    path: Path, parts: list[tuple[Part, NDArray[np.int64]]], form: tuple[int, int], skip_corrupt: bool
) -> Written:
    decoded: list[bool] = []
    lengths: list[int] = []
    fingerprints: list[bytes] = []
    packed = path.with_name("images.bin")
    with atomic(packed) as temporary, temporary.open("wb") as stream:
        for _, found in _each(parts, _checked, skip_corrupt, "copy images"):
            decoded.append(found is not None)
            if found is not None:
                stream.write(found[0])
                lengths.append(len(found[0]))
                fingerprints.append(found[1])
    length = np.array(lengths, dtype=np.int64)
    files = pa.chunked_array([pa.array([packed.name] * len(length), pa.string())])
    offset = np.cumsum(length) - length
    return _write_index(path, files, offset, length, form, "", (fingerprints, np.array(decoded)))


def _checked(picture: Picture) -> tuple[bytes, bytes]:
    """The encoded bytes of an image that can be decoded, and their fingerprint."""
    content = picture.encoded()
    check_range(open_encoded(content, picture.place), picture.place)
    return content, fingerprint(content)


def _write_index(
    path: Path,
    files: pa.ChunkedArray,
    offset: NDArray[np.int64],
    length: NDArray[np.int64],
    form: tuple[int, int],
    folder: str,
    found: tuple[list[bytes], NDArray[np.bool_]],
) -> Written:
    fingerprints, decoded = found
    if not len(offset):
        raise SamaError(f"data.corrupt_images: none of the {len(decoded)} images can be decoded")
    channels, size = form
    table = pa.table({"file": files.dictionary_encode(), "offset": offset, "length": length})
    write_table(path, table, {"folder": folder, "channels": str(channels), "size": str(size)})
    return Written((channels, size, size), fingerprints, decoded)


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    """The header of an array file; NumPy pads it so that its length does not depend on the first size."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"


def channel_statistics(
    pixels: NDArray[np.uint8] | EncodedImages, rows: NDArray[np.int64]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel of `pixels[rows]` [n, channels, height, width], in units where 255 is 1.

    Sums are of whole numbers, hence exact whatever the order. A deviation below one grey level (1/255) is given as one.
    """
    total = np.zeros(pixels.shape[1], dtype=np.int64)
    squares = np.zeros_like(total)
    at_once = max(CHUNK // int(np.prod(pixels.shape[1:])), 1)
    for start in range(0, len(rows), at_once):
        chunk = pixels[rows[start : start + at_once]].astype(np.int64)
        total += chunk.sum(axis=(0, 2, 3))
        squares += (chunk * chunk).sum(axis=(0, 2, 3))
    count = len(rows) * pixels.shape[2] * pixels.shape[3]
    mean = total / count
    # n * sum of squares - square of the sum is exact in Python's whole numbers, where the usual difference cancels
    variance = np.array([(count * int(s) - int(t) ** 2) / count**2 for t, s in zip(total, squares, strict=True)])
    deviation = np.maximum(np.sqrt(variance), 1.0)
    return (mean / 255.0).tolist(), (deviation / 255.0).tolist()
