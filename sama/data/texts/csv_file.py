"""CSV with a header (tabs between the columns of a `.tsv`): a text a row.

A folder with `train.csv`, and `validation.csv` (or `valid`, `dev`) and `test.csv` if there, or one file, which is the
training part. Labels are class names or indices; an empty cell and -1 abstain.
"""

import csv
import io
from pathlib import Path

from sama.data.texts.base import TextOptions, TextSource, read_utf8
from sama.data.texts.tables import Table, open_tables, tables_of
from sama.errors import SamaError


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
    stream = io.StringIO(read_utf8(path), newline="")
    reader = csv.reader(stream, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    rows, places = [], []
    try:
        header = next(reader, [])
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
    return Table(path, path.name, tuple(header), rows, places)
