"""Content hashes of what a run depends on."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

import sama
from sama.files import sha256

if TYPE_CHECKING:  # a launcher takes `source_hash` alone, and imports no pandas for it
    from sama.data.manifest import Dataset


def run_key(stage: str, seed: int, dataset: Dataset, *parts: BaseModel | Path | str) -> str:
    """Content hash of what a run depends on but its code: stage, seed, data, sections, files."""
    sections = [json.dumps(p.model_dump(mode="json"), sort_keys=True) if isinstance(p, BaseModel) else p for p in parts]
    return sha256(stage, str(seed), dataset.content_hash, *sections)


@cache
def source_hash() -> str:
    """Content hash of the package: a checkpoint made by other code is not continued."""
    root = Path(sama.__file__).parent
    return sha256(*(part for path in sorted(root.rglob("*.py")) for part in (str(path.relative_to(root)), path)))
