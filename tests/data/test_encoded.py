"""Images that stay encoded, without a stage around them: views, crops, places, and what is written of whom."""

from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sama.data.encoded import TASK, EncodedImages, Locations, in_order, open_index
from sama.data.sources.base import Part, Picture, stored_part
from sama.data.writing import Written, write_index
from sama.errors import SamaError

MANY = 2 * TASK + 3
SIZE = 4


def flat(folder: Path, values: range) -> Part:
    """Images of one grey each, in a file each."""
    folder.mkdir(exist_ok=True)
    names = [f"{value:03d}.png" for value in values]
    for name, value in zip(names, values, strict=True):
        Image.new("L", (SIZE, SIZE), value).save(folder / name)
    zeros, ids = np.zeros(len(names), dtype=np.int64), np.array(names)
    return stored_part(folder, Locations(pa.array(names), zeros, zeros - 1), ids, zeros, None, ids)


def opened(part: Part, folder: Path, workers: int = 2) -> EncodedImages:
    assert part.locations is not None
    return EncodedImages(folder, part.locations, 1, SIZE, workers)


def greys(pixels: np.ndarray) -> list[int]:
    return pixels[:, 0, 0, 0].tolist()


def test_a_view_of_a_view_and_no_images_at_all(tmp_path):
    images = opened(flat(tmp_path, range(MANY)), tmp_path)
    view = images.only(np.array([5, 9, 2])).only(np.array([2, 0]))
    assert len(view) == 2 and view.shape == (2, 1, SIZE, SIZE) and greys(view[np.arange(2)]) == [2, 5]
    assert view[1][0, 0, 0] == 5 and greys(np.asarray(view)) == [2, 5]
    assert images[np.arange(0)].shape == (0, 1, SIZE, SIZE)


def test_each_image_gets_its_own_crop_however_they_are_shared_out(tmp_path):
    """Image i is black but for row i of pixels; a crop of that row alone is white."""
    names = []
    for row in range(MANY):
        pixels = np.zeros((MANY, MANY), np.uint8)
        pixels[row] = 255
        names.append(f"{row}.png")
        Image.fromarray(pixels).save(tmp_path / names[-1])
    zeros = np.zeros(MANY, dtype=np.int64)
    images = EncodedImages(tmp_path, Locations(pa.array(names), zeros, zeros - 1), 1, 1, 3)
    place = np.arange(MANY) / (MANY - 1)
    crops = np.stack([np.full(MANY, 1 / MANY), np.full(MANY, MANY), place, np.zeros(MANY)], axis=1)
    assert greys(images.begin(np.arange(MANY), crops)()) == [255] * MANY


def test_a_corrupt_image_among_others_in_a_file_is_named_by_its_place(tmp_path):
    flat(tmp_path, range(1))
    content = (tmp_path / "000.png").read_bytes()
    (tmp_path / "both").write_bytes(content + b"x" * 30)
    ends = np.array([0, len(content)]), np.array([len(content), 30])
    images = EncodedImages(tmp_path, Locations(pa.array(["both", "both"]), *ends), 1, SIZE, 1)
    assert greys(images[np.array([0])]) == [0]
    with pytest.raises(SamaError, match=f"^{tmp_path / 'both'}: byte {len(content)}: corrupt image"):
        images[np.array([1])]


def test_items_are_taken_as_results_are_wanted_not_all_at_once():
    numbers = count()
    found = in_order(lambda n: n, numbers, 2)
    assert [next(found) for _ in range(10)] == list(range(10))
    found.close()  # type: ignore[attr-defined]
    assert next(numbers) <= 64 * 2 + 10


def written(path: Path, parts: list[tuple[Part, np.ndarray]], **options: bool) -> tuple[Written, list[int]]:
    found = write_index(path / "images.parquet", parts, 1, SIZE, "set", **options)
    images = open_index(path / "images.parquet", path, 1)
    return found, greys(images[np.arange(len(images))])


def test_the_chosen_of_each_part_are_written_whether_they_stay_or_are_copied(tmp_path):
    """Of a part that can be read in place and one that cannot, both are copied."""
    first, second = flat(tmp_path / "set", range(10)), flat(tmp_path / "other", range(100, 105))
    (tmp_path / "set" / "004.png").write_bytes(b"")
    chosen = [(first, np.array([1, 4, 7])), (first, np.array([8, 9]))]
    found, values = written(tmp_path, chosen, skip_corrupt=True)
    assert pa.types.is_dictionary(open_index(tmp_path / "images.parquet", tmp_path, 1).locations.file.type)
    assert values == [1, 7, 8, 9] and found.decoded.tolist() == [True, False, True, True, True]
    assert len(set(found.fingerprints)) == 4 and not (tmp_path / "images.bin").exists()
    apart = Part(second.sample_id, second.label, None, second.origin, second.read, encoded=True)
    copied, values = written(tmp_path, [chosen[0], (apart, np.array([0, 3]))], skip_corrupt=True)
    assert values == [1, 7, 100, 103] and copied.decoded.tolist() == [True, False, True, True, True]
    assert copied.fingerprints[:2] == found.fingerprints[:2] and len(set(copied.fingerprints)) == 4
    assert (tmp_path / "images.bin").exists()


def test_held_images_cannot_be_indexed_and_nothing_but_corrupt_ones_is_an_error(tmp_path):
    part = flat(tmp_path / "set", range(2))
    for path in (tmp_path / "set").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(SamaError, match="none of the 2 images can be decoded"):
        written(tmp_path, [(part, np.arange(2))], skip_corrupt=True)
    held = Part(part.sample_id, part.label, None, part.origin, lambda rows: (Picture(Image.new("L", (2, 2)), "x"),))  # type: ignore[arg-type,return-value]
    with pytest.raises(SamaError, match=r"data\.storage: this source has no encoded images, set decoded"):
        written(tmp_path, [(part, np.arange(2)), (held, np.arange(2))])
