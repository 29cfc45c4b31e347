"""Fashion-MNIST (Xiao et al., 2017, arXiv:1708.07747) in torchvision's layout: `FashionMNIST/raw`.

The idx files are read directly, unpacked or gzipped: torchvision would unpack them into a data root that may be
read-only.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sama.data.sources.base import Part, Source, SourceOptions, array_part
from sama.errors import SamaError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def open_fashion_mnist(options: SourceOptions) -> Source:
    """60000 training and 10000 test images, grey 28x28."""
    root = options.folder(default="")
    folder = root / "FashionMNIST" / "raw"
    return Source(CLASS_NAMES, 1, _part(folder, "train", "train"), _part(folder, "test", "t10k"))


def _part(folder: Path, name: str, prefix: str) -> Part:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise SamaError(f"{folder}: {prefix} files hold {len(images)} images but {len(labels)} labels")
    outside = np.flatnonzero(labels >= len(CLASS_NAMES))
    if len(outside):
        row = outside[0]
        raise SamaError(
            f"{folder / prefix}-labels-idx1-ubyte: row {row}: label {labels[row]} is outside the "
            f"{len(CLASS_NAMES)} classes 0..{len(CLASS_NAMES) - 1}"
        )
    return array_part(name, f"fashion_mnist/{name}", images, labels.astype(np.int64))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes (`path`, or `path.gz`), with that many dimensions.

    Format: bytes 0, 0, 8 (uint8), number of dimensions; each size as a big-endian uint32; then the values.
    """
    packed = path.with_name(f"{path.name}.gz")
    found = next((candidate for candidate in (path, packed) if candidate.is_file()), None)
    if found is None:
        raise SamaError(
            f"{packed}: missing; source 'fashion_mnist' was looked for in {path.parent}, set data_root (or "
            "SAMA_DATA_DIR) to the folder that holds FashionMNIST/raw"
        )
    try:
        content = gzip.decompress(found.read_bytes()) if found == packed else found.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise SamaError(f"{found}: cannot be read ({error})") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, 8, dimensions)) or len(content) < header:
        raise SamaError(f"{found}: expected an idx file of unsigned bytes in {dimensions} dimensions")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=dimensions, offset=4))
    if len(content) != header + math.prod(shape):
        raise SamaError(f"{found}: expected {math.prod(shape)} values for shape {shape}, got {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
