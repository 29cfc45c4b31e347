"""Files that are whole or absent: atomic writes, hashes, and deterministic JSON and parquet.

pandas and pyarrow are imported where a table is: a launcher, of which many wait side by side, needs neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sama.errors import SamaError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_written: dict[Path, None] = {}


def written() -> list[Path]:
    """The files that this process has put in their place and that still stand, in order."""
    return [path for path in _written if path.exists()]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its place when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _written[path] = None
    except OSError as error:
        error.add_note(str(path))  # a write to a full disk does not say which file it was
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys, atomically. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write `table` without its index as CSV, floats with six digits, atomically."""
    write_text(path, table.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def read_json(path: Path) -> Any:
    """The content of a JSON file, or a `SamaError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except json.JSONDecodeError as error:
        raise SamaError(f"{path}: not valid JSON ({error})") from error


def write_parquet(path: Path, frame: pd.DataFrame, facts: dict[str, str] | None = None) -> None:
    """Write `frame` without its index, and `facts` beside it, atomically; the same content gives the same bytes."""
    import pyarrow as pa

    write_table(path, pa.Table.from_pandas(frame, preserve_index=False), facts)


def write_table(path: Path, table: pa.Table, facts: dict[str, str] | None = None) -> None:
    """`write_parquet` for a table of Arrow."""
    import pyarrow.parquet as pq

    metadata = {"sama": json.dumps(facts, sort_keys=True)} if facts else None
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    """The named columns of a parquet file, or a `SamaError` that says which is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        present = pq.read_schema(path).names
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except pa.ArrowInvalid as error:
        raise SamaError(f"{path}: not a parquet file ({error})") from error
    absent = [column for column in columns if column not in present]
    if absent:
        raise SamaError(f"{path}: expected a column {absent[0]!r}, got {', '.join(present)}")
    return pq.read_table(path, columns=columns).to_pandas()


def read_facts(path: Path) -> dict[str, str]:
    """The facts that `write_parquet` left in the file; none in a file of another maker."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return json.loads((pq.read_schema(path).metadata or {}).get(b"sama", b"{}"))
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except pa.ArrowInvalid as error:
        raise SamaError(f"{path}: not a parquet file ({error})") from error


def copy(source: Path, target: Path) -> None:
    """Copy one file, atomically."""
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


def sha256(*parts: bytes | str | Path) -> str:
    """Hex digest of the parts in order; a `Path` counts by its content, each part by its length too."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with part.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
        else:
            content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
