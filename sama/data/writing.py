"""The decoded images as a file, and what is computed from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sama.data.images import CorruptImageError, to_pixels
from sama.data.overlap import fingerprint
from sama.data.sources import Part
from sama.errors import SamaError
from sama.files import atomic
from sama.metrics import Progress

CHUNK = 1024  # images in memory at a time


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
    with Progress(count, "decode images") as progress, atomic(path) as temporary, temporary.open("wb") as stream:
        for part, rows in parts:
            for found in _read(part, rows, skip_corrupt):
                decoded.append(found is not None)
                progress.update(len(decoded))
                if found is None:
                    continue
                image, place = found
                pixels = to_pixels(image, channels, image_size, place)
                if shape is None:
                    shape = pixels.shape
                    _write_header(stream, (count, *shape))
                elif pixels.shape != shape:
                    raise SamaError(
                        f"{place}: expected {_size(shape)} pixels like the images before, got {_size(pixels.shape)}: "
                        "set data.image_size to bring all to one size"
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


def _read(part: Part, rows: NDArray[np.int64], skip_corrupt: bool) -> Iterator[tuple[Image.Image, str] | None]:
    """What `part.read` gives; None for a corrupt image if that is to be skipped, and reading goes on behind it."""
    done = 0
    while done < len(rows):
        try:
            for found in part.read(rows[done:]):
                done += 1
                yield found
        except CorruptImageError:
            if not skip_corrupt:
                raise
            done += 1
            yield None
        else:
            return


def _write_header(stream: IO[bytes], shape: tuple[int, ...]) -> None:
    """The header of an array file; NumPy pads it so that its length does not depend on the first size."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[2]}x{shape[1]}"


def channel_statistics(pixels: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel of `pixels[rows]` [n, channels, height, width], in units where 255 is 1.

    Sums are of whole numbers, hence exact whatever the order. A deviation below one grey level (1/255) is given as one.
    """
    total = np.zeros(pixels.shape[1], dtype=np.int64)
    squares = np.zeros_like(total)
    for start in range(0, len(rows), CHUNK):
        chunk = pixels[rows[start : start + CHUNK]].astype(np.int64)
        total += chunk.sum(axis=(0, 2, 3))
        squares += (chunk * chunk).sum(axis=(0, 2, 3))
    count = len(rows) * pixels.shape[2] * pixels.shape[3]
    mean = total / count
    # n * sum of squares - square of the sum is exact in Python's whole numbers, where the usual difference cancels
    variance = np.array([(count * int(s) - int(t) ** 2) / count**2 for t, s in zip(total, squares, strict=True)])
    deviation = np.maximum(np.sqrt(variance), 1.0)
    return (mean / 255.0).tolist(), (deviation / 255.0).tolist()
