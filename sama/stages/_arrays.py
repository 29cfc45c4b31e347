"""Values of the training examples with the ids they belong to: arrays (safetensors), columns (parquet)."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sama.errors import SamaError
from sama.files import atomic, read_parquet

IDS = "sample_id"  # the ids as UTF-8 text, one a line: the format has no strings


def write_arrays(path: Path, sample_ids: np.ndarray, **arrays: np.ndarray) -> None:
    """Write named arrays and the ids of the examples that they are about, atomically; same content, same bytes."""
    ids = np.frombuffer("\n".join(sample_ids.tolist()).encode(), dtype=np.uint8)
    content = save({IDS: ids, **{name: np.ascontiguousarray(array) for name, array in arrays.items()}})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_array(path: Path, sample_ids: np.ndarray, name: str, rows: int | None = None) -> np.ndarray:
    """The named array of a file of `write_arrays`, or its first `rows` (all, if fewer); else only the ids are read.

    Raises:
        SamaError: the file is missing or damaged, lacks the array, or is about other examples or another order of them.
    """
    try:
        with safe_open(path, "numpy") as content:
            names = sorted(content.keys())
            for wanted in (IDS, name):
                if wanted not in names:
                    raise SamaError(f"{path}: expected an array {wanted!r}, got {', '.join(names)}")
            if content.get_tensor(IDS).tobytes().decode().split("\n") != sample_ids.tolist():
                raise SamaError(f"{path}: its sample ids are not those of split train")
            found = content.get_slice(name)
            return found[: found.get_shape()[0] if rows is None else min(rows, found.get_shape()[0])]
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except SafetensorError as error:
        raise SamaError(f"{path}: not a whole safetensors file ({error})") from error


def read_visits(path: Path, sample_ids: np.ndarray, name: str, epochs: int | None, section: str) -> np.ndarray:
    """The first `epochs` rows of a record of training dynamics, float32 [visits, n]; all where it is None.

    `section` of the configuration asks for so many.

    Raises:
        SamaError: as `read_array`, or there are fewer rows.
    """
    found = read_array(path, sample_ids, name, epochs)
    if epochs is not None and len(found) < epochs:
        raise SamaError(
            f"{path}: has {len(found)} whole epochs of the observed training, expected at least {section}.epochs = "
            f"{epochs}: lower it, or observe more steps"
        )
    return found


def read_column(path: Path, name: str, sample_ids: np.ndarray, manifest: Path) -> np.ndarray:
    """The named column [n] of a parquet file, float64, whose rows are the examples `sample_ids` of `manifest`.

    Raises:
        SamaError: the file or the column is missing, or it is about other examples or another order of them.
    """
    frame = read_parquet(path, ["sample_id", name])
    if not np.array_equal(frame["sample_id"].to_numpy(str), sample_ids):
        raise SamaError(f"{path}: its sample ids are not those of split train in {manifest}")
    return frame[name].to_numpy(np.float64)
