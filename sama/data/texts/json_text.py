"""JSON that a person wrote: what Python's reader would take in silence, or answer with a traceback, is one line."""

import json
from typing import Any

from sama.errors import SamaError


def parse_json(text: str, where: str, line: int | None = None) -> Any:
    """The value that `text` holds; `where` is its file, `line` its line there if it is one of many.

    Raises:
        SamaError: it is not JSON, a key stands twice in an object (Python keeps the last), a number has more digits
            than Python reads, or objects stand in each other too deep.
    """
    place = where if line is None else f"{where}: line {line}"

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        held = dict(pairs)
        if len(held) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise SamaError(f"{place}: expected ids and keys of their own, got {twice!r} twice")
        return held

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        number = error.lineno if line is None else line
        raise SamaError(f"{where}: line {number}: not valid JSON ({error.msg}, column {error.colno})") from error
    except SamaError:  # a ValueError too
        raise
    except ValueError as error:  # int() has a limit
        raise SamaError(f"{place}: expected numbers of at most some thousand digits, got a longer one") from error
    except RecursionError as error:
        raise SamaError(f"{place}: expected a plain object, got lists or objects nested too deep to read") from error
