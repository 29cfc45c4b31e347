"""A folder of images, one sub-folder a class: `CLASS/file`, or `train/CLASS/file` with `test/` or `val/` beside it.

Which layout it is: `train/CLASS/file` where a folder `train` exists and itself holds folders. Where both `test` and
`val` stand beside it, `test` is the test part and `val` is not read. Hidden entries, and files that are no images by
their extension, are passed over; a folder inside a class folder is an error.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from sama.data.encoded import WHOLE, Locations
from sama.data.sources.base import Part, Source, SourceOptions, stored_part
from sama.errors import SamaError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
HELD_OUT = ("test", "val", "validation")


def open_image_folder(options: SourceOptions) -> Source:
    """Class names are the folder names of the training part, sorted; ids are paths relative to the folder.

    Raises:
        SamaError: no class folder, an empty class folder, a folder inside a class folder, a test class that the
            training part does not have, or a name that is no Unicode text.
    """
    folder = options.folder()
    if not (folder / "train").is_dir() or not _folders(folder / "train"):
        class_names = _class_names(folder)
        return Source(class_names, 3, _part(folder, "", class_names))
    class_names = _class_names(folder / "train")
    strange = [name for name in _folders(folder) if name not in ("train", *HELD_OUT)]
    if strange:
        raise SamaError(
            f"{folder / strange[0]}: unexpected folder beside train/: expected train/CLASS/file with an optional "
            "test/ or val/, or CLASS/file alone"
        )
    train = _part(folder, "train", class_names)
    held_out = next((name for name in HELD_OUT if (folder / name).is_dir()), None)
    return Source(class_names, 3, train, _part(folder, held_out, class_names) if held_out else None)


def _part(folder: Path, name: str, class_names: tuple[str, ...]) -> Part:
    base = folder / name
    for unknown in set(_folders(base)) - set(class_names):
        raise SamaError(f"{base / unknown}: class {unknown!r} is outside the {len(class_names)} classes of train/")
    found: list[tuple[str, int]] = []
    for label, class_name in enumerate(class_names):
        if not (base / class_name).is_dir():
            raise SamaError(f"{base / class_name}: missing: class {class_name!r} has no folder here")
        files = _images(base / class_name)
        if not files:
            raise SamaError(
                f"{base / class_name}: class {class_name!r} is empty: expected at least one image "
                f"({', '.join(EXTENSIONS)})"
            )
        found += [("/".join(part for part in (name, class_name, file) if part), label) for file in files]
    found.sort()
    sample_id = np.array([path for path, _ in found], dtype=np.str_)

    labels = np.array([label for _, label in found], dtype=np.int64)
    files = pa.array((path for path, _ in found), pa.string(), size=len(found))
    locations = Locations(files, np.zeros_like(labels), np.full_like(labels, WHOLE))
    return stored_part(folder, locations, sample_id, labels, None, sample_id)


def _class_names(base: Path) -> tuple[str, ...]:
    names = tuple(_folders(base))
    if not names:
        raise SamaError(f"{base}: expected a folder a class (CLASS/file or train/CLASS/file), found none")
    return names


def _folders(base: Path) -> list[str]:
    """Names of the sub-folders, sorted, hidden ones left out."""
    with os.scandir(base) as entries:
        return sorted(_text(entry) for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _images(base: Path) -> list[str]:
    """Names of the image files of a class folder."""
    names = []
    with os.scandir(base) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                raise SamaError(f"{entry.path}: a folder inside a class folder: expected CLASS/file, images directly")
            if entry.name.lower().endswith(EXTENSIONS):
                names.append(_text(entry))
    return names


def _text(entry: os.DirEntry[str]) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError as error:
        raise SamaError(f"{entry.path!a}: expected a name in UTF-8, for it becomes a sample id") from error
    return entry.name
