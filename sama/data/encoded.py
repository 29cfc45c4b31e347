"""Images that stay encoded in their files and are decoded by threads when they are read.

`images.parquet` has a row an image: `file` (below the folder of the source, or beside the index), `offset` and `length`
in bytes (-1: to the end of the file). A file is opened for every read, so there is no limit to how many there are, and
memory grows with the index alone. Decoding releases Python's lock, so threads share it out well.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sama.data.images import CorruptImageError, open_encoded, to_pixels
from sama.data.root import below
from sama.errors import SamaError
from sama.files import read_facts

Item = TypeVar("Item")
Result = TypeVar("Result")

TASK = 8  # images a thread decodes before it looks for more
WHOLE = -1  # length of what reaches to the end of its file


@dataclass(frozen=True)
class Locations:
    """Where n encoded images stand: file [n] (relative), offset and length in bytes [n]."""

    file: pa.Array
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def only(self, rows: NDArray[np.int64]) -> "Locations":
        """Those of the rows."""
        return Locations(self.file.take(pa.array(rows)), self.offset[rows], self.length[rows])

    def place(self, row: int) -> str:
        """For messages: the file, and where in it, if it holds more than one image."""
        name = self.file[row].as_py()
        return name if self.length[row] == WHOLE else f"{name}: byte {self.offset[row]}"

    def read(self, folder: Path, row: int) -> bytes:
        """The encoded image.

        Raises:
            CorruptImageError: the file is missing or ends before the image does.
        """
        offset, length = int(self.offset[row]), int(self.length[row])
        path = folder / self.file[row].as_py()
        try:
            with path.open("rb") as stream:
                stream.seek(offset)
                content = stream.read(length)
        except OSError as error:
            raise CorruptImageError(f"{path}: cannot be read ({error.strerror})") from error
        if len(content) < length:
            raise CorruptImageError(f"{path}: expected {length} bytes from {offset} on, got {len(content)}")
        return content


@lru_cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="decode")


class EncodedImages:
    """n images, uint8 [n, channels, size, size] to whoever reads them; an index like that of an array gives pixels.

    Args:
        folder: what the files are relative to.
        locations: of the images, in rows.
        channels: 1 or 3.
        size: side in pixels; each image is brought to it.
        workers: threads that decode; the pixels are the same for any number.
        rows: of `locations` that this is a view of; None: all.
    """

    def __init__(
        self,
        folder: Path,
        locations: Locations,
        channels: int,
        size: int,
        workers: int,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.folder, self.locations = folder, locations
        self.channels, self.size, self.workers = channels, size, workers
        self.rows = np.arange(len(locations)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """n, channels, height, width."""
        return len(self), self.channels, self.size, self.size

    def only(self, rows: NDArray[np.int64]) -> "EncodedImages":
        """A view of some of the images."""
        return EncodedImages(self.folder, self.locations, self.channels, self.size, self.workers, self.rows[rows])

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.uint8]:
        """All pixels; for a few images."""
        return self[np.arange(len(self))]

    def __getitem__(self, rows: int | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pixels of one image [channels, size, size], or of an array of rows [k, channels, size, size]."""
        if np.ndim(rows) == 0:
            return self._decode(np.array([rows]), None)[0]
        return self.begin(np.asarray(rows))()

    def begin(
        self, rows: NDArray[np.int64], crops: NDArray[np.float64] | None = None
    ) -> Callable[[], NDArray[np.uint8]]:
        """Begin to decode; the function that comes back waits, and gives uint8 [k, channels, size, size].

        Args:
            rows: int [k].
            crops: (area, ratio, top, left) of each [k, 4], see `crop_box`; None: the largest central square.

        Raises:
            CorruptImageError: by the function: an image cannot be decoded; names it.
        """
        tasks: list[Future[NDArray[np.uint8]]] = []
        for start in range(0, len(rows), TASK):
            part = slice(start, start + TASK)
            tasks.append(_pool(self.workers).submit(self._decode, rows[part], None if crops is None else crops[part]))

        def finish() -> NDArray[np.uint8]:
            if not tasks:
                return np.empty((0, self.channels, self.size, self.size), dtype=np.uint8)
            return np.concatenate([task.result() for task in tasks])

        return finish

    def _decode(self, rows: NDArray[np.int64], crops: NDArray[np.float64] | None) -> NDArray[np.uint8]:
        pixels = np.empty((len(rows), self.channels, self.size, self.size), dtype=np.uint8)
        for i, row in enumerate(self.rows[rows].tolist()):
            place = str(self.folder / self.locations.place(row))
            image = open_encoded(self.locations.read(self.folder, row), place)
            box = None if crops is None else crop_box(image.width, image.height, *crops[i].tolist())
            pixels[i] = to_pixels(image, self.channels, self.size, place, box)
        return pixels


def crop_box(
    width: int, height: int, area: float, ratio: float, top: float, left: float
) -> tuple[float, float, float, float]:
    """(left, upper, right, lower) of a crop of `area` (a fraction of the image) with width : height = `ratio`.

    What would reach beyond the image is cut to it. `top` and `left` in [0, 1) place the crop in the room that is left.
    """
    wanted = area * width * height
    w, h = min((wanted * ratio) ** 0.5, width), min((wanted / ratio) ** 0.5, height)
    x, y = left * (width - w), top * (height - h)
    return x, y, x + w, y + h


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """`map(function, items)` by threads; results in the order of the items, a few hundred in memory at most.

    What `function` raises is raised in its place, and ends it.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 64 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def open_index(path: Path, root: Path | None, workers: int) -> EncodedImages:
    """The images of an index `images.parquet`; `root` is the data root that a relative folder in it stands below.

    Raises:
        SamaError: the index is missing, not one, or its folder is not to be found.
    """
    facts = read_facts(path)
    if not {"folder", "channels", "size"} <= set(facts):
        raise SamaError(f"{path}: not an index of images: make it by sama prepare")
    folder = _folder(path, facts["folder"], root)
    table = pq.read_table(path, columns=["file", "offset", "length"])
    file = table.column("file").combine_chunks()
    offset, length = (table.column(name).to_numpy() for name in ("offset", "length"))
    return EncodedImages(folder, Locations(file, offset, length), int(facts["channels"]), int(facts["size"]), workers)


def _folder(path: Path, named: str, root: Path | None) -> Path:
    if not named:
        return path.parent
    folder = below(root, named, f"the images of {path} stand in {named!r} below it")
    if not folder.is_dir():
        raise SamaError(f"{folder}: no such folder, expected the images of {path} there: set data_root (SAMA_DATA_DIR)")
    return folder
