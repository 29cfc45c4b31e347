"""How a registry of sources is asked for one."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from sama.errors import SamaError

Opener = TypeVar("Opener")


def registered(registry: Mapping[str, Opener], name: str, kind: str) -> Opener:
    """The entry `name`, or a `SamaError` that calls it an unknown `kind` and names the nearest one."""
    if name not in registry:
        close = difflib.get_close_matches(name, registry, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(registry)}"
        raise SamaError(f"data.source: unknown {kind} {name!r} ({hint})")
    return registry[name]
