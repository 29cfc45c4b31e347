import errno

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sama.data.sources import Part, Picture
from sama.data.writing import channel_statistics, write_images
from sama.errors import SamaError


def part_of(images: list[Image.Image]) -> Part:
    names = np.array([f"x/{i}" for i in range(len(images))], dtype=np.str_)

    def read(rows):
        for row in rows:
            yield Picture(images[row], str(names[row]))

    return Part(names, np.zeros(len(images), dtype=np.int64), None, names, read)


@given(st.integers(1, 3000), st.integers(0, 2**31))
def test_statistics_are_those_of_numpy(count, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)
    rows = np.arange(0, count, 2)
    mean, deviation = channel_statistics(pixels, rows)
    unit = pixels[rows] / 255.0
    assert np.allclose(mean, unit.mean(axis=(0, 2, 3)), rtol=0, atol=1e-12)
    assert np.allclose(deviation, unit.std(axis=(0, 2, 3)), rtol=0, atol=1e-12)


def test_a_flat_channel_has_the_deviation_of_one_grey_level():
    assert channel_statistics(np.full((5, 1, 4, 4), 9, np.uint8), np.arange(5)) == ([9 / 255], [1 / 255])


def test_statistics_of_large_images_take_few_at_a_time():
    asked = []

    class Large:
        def __init__(self, side):
            self.shape = (100, 3, side, side)

        def __getitem__(self, rows):
            asked.append(len(rows))
            return np.zeros((len(rows), 3, 2, 2), np.uint8)

    channel_statistics(Large(1000), np.arange(100))  # pyright: ignore[reportArgumentType]
    assert sum(asked) == 100 and max(asked) == 5  # 5 x 3 x 10**6 numbers of 8 bytes
    asked.clear()
    channel_statistics(Large(5000), np.arange(3))  # pyright: ignore[reportArgumentType]
    assert asked == [1, 1, 1]


def test_parts_stand_one_after_the_other_and_equal_images_have_equal_fingerprints(tmp_path):
    first = part_of([Image.new("L", (3, 2), value) for value in (1, 2, 3)])
    second = part_of([Image.new("RGB", (3, 2), (value,) * 3) for value in (3, 4)])
    chosen = [(first, np.array([0, 2])), (second, np.array([0, 1]))]
    written = write_images(tmp_path / "images.npy", chosen, channels=1, image_size=None)
    images = np.load(tmp_path / "images.npy")
    assert images.shape == (4, 1, 2, 3) and images.dtype == np.uint8
    assert images[:, 0, 0, 0].tolist() == [1, 3, 3, 4]
    assert written.image_shape == (1, 2, 3)
    assert written.fingerprints[1] == written.fingerprints[2] and len(set(written.fingerprints)) == 3


def test_images_of_two_sizes_are_named_and_nothing_is_left(tmp_path):
    part = part_of([Image.new("L", (3, 2)), Image.new("L", (2, 2))])
    with pytest.raises(SamaError, match=r"x/1: expected 3x2 pixels .* got 2x2: set data.image_size"):
        write_images(tmp_path / "images.npy", [(part, np.arange(2))], 1, None)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_gives_too_few_images_is_a_bug_that_is_noticed(tmp_path):
    part = part_of([Image.new("L", (2, 2))] * 3)
    short = Part(part.sample_id, part.label, None, part.origin, lambda rows: part.read(rows[:-1]))
    with pytest.raises(RuntimeError, match="expected 3 images from the source, got 2"):
        write_images(tmp_path / "images.npy", [(short, np.arange(3))], 1, None)


def test_a_full_disk_says_which_file_and_leaves_nothing(tmp_path, monkeypatch):
    def full(stream, header):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(OSError, match="No space left") as raised:
        write_images(tmp_path / "images.npy", [(part_of([Image.new("L", (2, 2))]), np.arange(1))], 1, None)
    assert raised.value.__notes__ == [str(tmp_path / "images.npy")]
    assert list(tmp_path.iterdir()) == []
