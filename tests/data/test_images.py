from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from sama.data.images import open_encoded, to_pixels
from sama.errors import SamaError

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
GREY = COLOUR[:, :, 0]


def png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_colour_and_grey_stay_as_they_are():
    assert np.array_equal(to_pixels(Image.fromarray(COLOUR), 3, None, "x"), COLOUR.transpose(2, 0, 1))
    assert np.array_equal(to_pixels(Image.fromarray(GREY), 1, 6, "x"), GREY[None])


def test_grey_becomes_three_equal_channels_and_colour_becomes_luma():
    assert np.array_equal(to_pixels(Image.fromarray(GREY), 3, None, "x"), np.stack([GREY] * 3))
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_pixels(Image.fromarray(COLOUR), 1, None, "x")[0] - luma).max() <= 1


def test_alpha_is_dropped_and_palettes_are_looked_up():
    alpha = np.dstack([COLOUR, np.full((6, 6), 7, np.uint8)])
    assert np.array_equal(to_pixels(open_encoded(png(Image.fromarray(alpha)), "x"), 3, None, "x")[1], COLOUR[:, :, 1])
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    opened = open_encoded(png(palette), "x")
    assert opened.mode == "P"
    assert to_pixels(opened, 3, None, "x")[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]


def test_sixteen_bit_grey_keeps_its_high_byte():
    opened = open_encoded(png(Image.fromarray((GREY.astype(np.uint16) << 8) + 200)), "x")
    assert opened.mode.startswith("I")
    assert np.array_equal(to_pixels(opened, 1, None, "x")[0], GREY)


def test_lightness_and_colour_axes_become_colour_and_grey():
    stream = BytesIO()
    Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (255, 128, 128)]).save(stream, "TIFF")
    opened = open_encoded(stream.getvalue(), "x")
    assert opened.mode == "LAB"
    for channels in (1, 3):
        assert to_pixels(opened, channels, None, "x").min() >= 250  # white


@pytest.mark.parametrize("most", [65535, 4095])
def test_sixteen_bit_portable_grey_maps_keep_their_high_byte_too(most):
    high = (GREY.astype(np.float64) / 255 * most).round().astype(">u2")
    opened = open_encoded(b"P5 6 6 %d\n" % most + high.tobytes(), "x")
    assert opened.mode == "I"  # as Pillow opens images of 32 bits
    assert np.abs(to_pixels(opened, 1, None, "x")[0] - GREY.astype(int)).max() <= 1


def test_floats_have_no_range_and_are_refused():
    with pytest.raises(SamaError, match=r"here: expected 8-bit or 16-bit pixels, got 32-bit ones \(mode F\)"):
        to_pixels(Image.new("F", (2, 2)), 1, None, "here")


def test_the_central_square_is_resized():
    wide = np.zeros((4, 20), np.uint8)
    wide[:, 5:15] = 200
    assert np.array_equal(to_pixels(Image.fromarray(wide), 1, 2, "x"), np.full((1, 2, 2), 200))
    assert to_pixels(Image.fromarray(COLOUR), 3, 9, "x").shape == (3, 9, 9)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"not an image", lambda b: b""])
def test_a_corrupt_image_is_named(damage):
    with pytest.raises(SamaError, match=r"^here: corrupt image"):
        open_encoded(damage(png(Image.fromarray(COLOUR))), "here")
