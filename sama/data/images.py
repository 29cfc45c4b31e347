"""From whatever Pillow opens to uint8 pixels of one mode and size."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sama.errors import SamaError

MODES = {1: "L", 3: "RGB"}


class CorruptImageError(SamaError):
    """An image that is missing, cut short or of no known format or range; `data.corrupt_images` says what then."""


def open_encoded(content: bytes, place: str) -> Image.Image:
    """The decoded image, or a `CorruptImageError` that names `place` where it is corrupt or cut short."""
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
            return image
    except Exception as error:  # a decoder fed with garbage raises almost anything
        reason = "no image format known to Pillow" if isinstance(error, Image.UnidentifiedImageError) else error
        raise CorruptImageError(f"{place}: corrupt image ({reason})") from error


def check_range(image: Image.Image, place: str) -> None:
    """A mode whose range is fixed, or a `CorruptImageError`: 32-bit integers and floats have none."""
    if image.mode in ("I", "F") and not _sixteen_bits(image):
        raise CorruptImageError(f"{place}: expected 8-bit or 16-bit pixels, got 32-bit ones (mode {image.mode})")


def _sixteen_bits(image: Image.Image) -> bool:
    return image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM")  # Pillow widens 16-bit PGM


def to_pixels(
    image: Image.Image,
    channels: int,
    size: int | None,
    place: str,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Pixels uint8 [channels, height, width] of an image of any mode.

    Colour becomes grey by ITU-R 601 luma, grey becomes three equal channels, palettes are looked up, alpha is dropped
    (as torchvision's loader does), 16-bit grey keeps its high byte. With `size`, the largest central square is resized
    to `size` x `size` (bilinear, antialiased), or instead of it `box` (left, upper, right, lower); an image that has
    this size already is left untouched. Orientation tags are not applied.

    Raises:
        CorruptImageError: a mode that has no fixed range (32-bit integers or floats).
    """
    mode = MODES[channels]
    check_range(image, place)
    if _sixteen_bits(image):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("P", "PA"):  # by way of RGBA, else Pillow warns of transparent palettes
        image = image.convert("RGBA")
    if image.mode == "LAB":  # of which Pillow makes colour alone
        image = image.convert("RGB")
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None and box is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR, box)
    elif size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
