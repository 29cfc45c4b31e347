"""What `sama init` does for any data of one's own: the file that it writes, and YAML that any name survives."""

import re
import textwrap
from pathlib import Path

import yaml

from sama.config import validate_any
from sama.errors import SamaError
from sama.files import write_text


def experiment_name(path: Path, force: bool) -> str:
    """The name of the experiment that the configuration `path` is of.

    Raises:
        SamaError: `path` is there and `force` is not given, or it gives no name.
    """
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")
    if path.suffix not in (".yaml", ".yml") or not name:
        raise SamaError(f"{path}: expected a file NAME.yaml, for NAME names the experiment")
    if path.exists() and not force:
        raise SamaError(f"{path}: exists already; --force writes over it")
    return name


def write_checked(path: Path, text: str) -> None:
    """Write a configuration that is valid as it stands; else a `SamaError`, and nothing is written."""
    validate_any(yaml.safe_load(text), where=str(path))
    write_text(path, text)


def quoted(text: str) -> str:
    """`text` as a YAML string on one line, whatever is in it."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=2**16).strip()


def wrapped(text: str) -> str:
    """`text` as lines of a comment."""
    return "\n".join(f"#   {line}" for line in textwrap.wrap(text, 112, break_on_hyphens=False))


def listed(names: tuple[str, ...], counts: tuple[int, ...], most: int = 30) -> str:
    """Classes with their counts as lines of a comment, the first `most` of them."""
    pairs = [f"{quoted(name)} {count}" for name, count in zip(names[:most], counts, strict=False)]
    more = len(counts) - len(pairs)
    return wrapped(", ".join(pairs) + (f" and {more} more" if more > 0 else ""))
