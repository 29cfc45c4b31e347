"""JSON lines: an object a line; columns are its keys.

A folder with `train.jsonl`, and `validation.jsonl` (or `valid`, `dev`) and `test.jsonl` if there, or one file, which
is the training part. Labels are class names (true and false too) or numbers (`labels.py`); null and -1 abstain.
"""

from pathlib import Path

from sama.data.texts.base import TextOptions, TextSource, read_utf8, shown
from sama.data.texts.json_text import parse_json
from sama.data.texts.tables import Table, open_tables, tables_of
from sama.errors import SamaError


def open_json_lines(options: TextOptions) -> TextSource:
    """The texts of the files; ids are `FILE/ROW`, or those of `id_column`.

    Raises:
        SamaError: a missing file or column, a line that is no object, a wrong label or text: which, and where.
    """
    place = options.place()
    tables = tables_of(place, (".jsonl",), read_json_lines)
    return open_tables(tables, place if place.is_dir() else place.parent, options)


def read_json_lines(path: Path) -> Table:
    """The objects of a file; blank lines are passed over."""
    rows, places = [], []
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):  # a text may hold other line separators
        if not line.strip():
            continue
        row = parse_json(line, str(path), number)
        if not isinstance(row, dict):
            raise SamaError(f"{path}: line {number}: expected an object, got {shown(row)}")
        rows.append(row)
        places.append(f"line {number}")
    if not rows:
        raise SamaError(f"{path}: the file is empty: expected at least one text")
    return Table(path, path.name, tuple(dict.fromkeys(key for row in rows for key in row)), rows, places)
