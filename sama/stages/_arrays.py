"""Values of the training examples with the ids they belong to: arrays (safetensors), columns (parquet)."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from sama.errors import SamaError
from sama.files import atomic, read_parquet

IDS = "sample_id"  # the ids as UTF-8 text, one a line: the format has no strings


def write_arrays(path: Path, sample_ids: np.ndarray, **arrays: np.ndarray) -> None:
    """Write named arrays and the ids of the examples that they are about, atomically; same content, same bytes."""
    ids = np.frombuffer("\n".join(sample_ids.tolist()).encode(), dtype=np.uint8)
    content = save({IDS: ids, **{name: np.ascontiguousarray(array) for name, array in arrays.items()}})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: Path, sample_ids: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    """The named arrays of a file of `write_arrays`.

    Raises:
        SamaError: the file is missing or damaged, lacks an array, or is about other examples or another order of them.
    """
    try:
        content = load_file(path)
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except SafetensorError as error:
        raise SamaError(f"{path}: not a whole safetensors file ({error})") from error
    absent = [name for name in (IDS, *names) if name not in content]
    if absent:
        raise SamaError(f"{path}: expected an array {absent[0]!r}, got {', '.join(sorted(content))}")
    if content[IDS].tobytes().decode().split("\n") != sample_ids.tolist():
        raise SamaError(f"{path}: its sample ids are not those of split train")
    return [content[name] for name in names]


def read_column(path: Path, name: str, sample_ids: np.ndarray, manifest: Path) -> np.ndarray:
    """The named column [n] of a parquet file, float64, whose rows are the examples `sample_ids` of `manifest`.

    Raises:
        SamaError: the file or the column is missing, or it is about other examples or another order of them.
    """
    frame = read_parquet(path, ["sample_id", name])
    if not np.array_equal(frame["sample_id"].to_numpy(str), sample_ids):
        raise SamaError(f"{path}: its sample ids are not those of split train in {manifest}")
    return frame[name].to_numpy(np.float64)
