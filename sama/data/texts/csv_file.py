"""CSV with a header (tabs between the columns of a `.tsv`): a text a row.

A folder with `train.csv`, and `validation.csv` (or `valid`, `dev`) and `test.csv` if there, or one file, which is the
training part. Labels are class names or numbers (`labels.py`); an empty cell and -1 abstain.
"""

import csv
import io
from pathlib import Path

from sama.data.texts.base import TextOptions, TextSource, read_utf8
from sama.data.texts.tables import Table, open_tables, tables_of
from sama.errors import SamaError

LONGEST_CELL = 2**31 - 1  # characters; Python's own limit of 131072 is shorter than some documents
SEPARATORS = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}


def open_csv(options: TextOptions) -> TextSource:
    """The texts of the files; ids are `FILE/ROW`, or those of `id_column`.

    Raises:
        SamaError: a missing file or column, a row with too few or many cells, a wrong label or text: which, and where.
    """
    place = options.place()
    tables = tables_of(place, (".csv", ".tsv"), read_csv)
    return open_tables(tables, place if place.is_dir() else place.parent, options)


def read_csv(path: Path) -> Table:
    """The rows of a file below its header; places are the lines on which rows end (a quoted text may hold several)."""
    content = read_utf8(path)
    if not content.strip():
        raise SamaError(f"{path}: the file is empty: expected a header and at least one text")
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        return _table(path, content)
    finally:
        csv.field_size_limit(limit)


def _table(path: Path, content: str) -> Table:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows, places = [], []
    try:
        header = next(reader)
        other = next((separator for separator in SEPARATORS if separator in header[0]), None) if header else None
        if len(header) == 1 and delimiter in header[0]:
            raise SamaError(f"{path}: line 1: expected quotes around single names, got them around {header[0]!r}")
        if len(header) == 1 and other is not None:
            raise SamaError(
                f"{path}: line 1: expected {SEPARATORS[delimiter]} between the columns, there seem to be "
                f"{SEPARATORS[other]}"
            )
        twice = [name for i, name in enumerate(header) if name in header[:i]]
        if twice:
            raise SamaError(f"{path}: line 1: expected column names of their own, got {twice[0]!r} twice")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise SamaError(f"{path}: line {reader.line_num}: expected {len(header)} cells, got {len(cells)}")
            rows.append(dict(zip(header, cells, strict=True)))
            places.append(f"line {reader.line_num}")
    except csv.Error as error:
        raise SamaError(f"{path}: line {reader.line_num}: not valid CSV ({error})") from error
    if not rows:
        raise SamaError(f"{path}: expected at least one text below the header, got none")
    return Table(path, path.name, tuple(header), rows, places)
