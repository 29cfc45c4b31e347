"""Rows of a table with named columns (JSON lines, CSV, a hub data set) as parts of texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sama.data.sources.base import numbered
from sama.data.texts.base import UNKNOWN, TextOptions, TextPart, TextSource, make_part, make_source, same_functions
from sama.data.texts.labels import Labels, labels_from
from sama.errors import SamaError

PART_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}


@dataclass(frozen=True)
class Table:
    """Rows as mappings from column to value; `places` say where each row stands, for messages."""

    where: Path | str
    name: str  # begins the ids of its rows: `NAME/00042`, counted from 0
    columns: tuple[str, ...]  # what the table has, in its order; a JSON row may lack some
    rows: Sequence[Mapping[str, Any]]
    places: Sequence[str]


def tables_of(place: Path, suffixes: Sequence[str], read: Callable[[Path], Table]) -> dict[str, Table]:
    """The tables of a folder (`train`, `validation`, `valid` or `dev`, `test` with a suffix), or of one file: train.

    Raises:
        SamaError: no file of the training part, or two files for one part.
    """
    if place.is_file():
        return {"train": read(place)}
    tables = {}
    for part, stems in PART_NAMES.items():
        found = [file for stem in stems for suffix in suffixes if (file := place / f"{stem}{suffix}").is_file()]
        if len(found) > 1:
            raise SamaError(f"{place}: expected one file for {part}, got {', '.join(file.name for file in found)}")
        if found:
            tables[part] = read(found[0])
    if "train" not in tables:
        raise SamaError(f"{place}: expected a file {' or '.join(f'train{suffix}' for suffix in suffixes)}, found none")
    return tables


def open_tables(
    tables: Mapping[str, Table], folder: Path, options: TextOptions, class_names: Sequence[str] | None = None
) -> TextSource:
    """The source of these tables; class names as given, else as `labels_from` finds them in the training table.

    The training part has all vote columns, if any are named. A held-out part may lack them, if it has the clean label
    of one text or more; a training part without votes needs all. A vote column that is the label column too is weak in
    the training part and clean in the others.

    Raises:
        SamaError: a column is missing, or a row is not as its columns demand.
    """
    train, clean = tables["train"], options.label_column
    if empty := next((table for table in tables.values() if not table.rows), None):  # a split of a hub
        raise SamaError(f"{empty.where}: expected at least one text, got none")
    if clean is None and not options.vote_columns:
        raise SamaError(f"{train.where}: expected the name of a label column or of vote columns, got neither")
    demanding = [train] if not options.vote_columns else tables.values()
    if clean is not None and not any(clean in table.columns for table in demanding):
        raise SamaError(f"{train.where}: expected a column {clean!r}, got {', '.join(train.columns) or 'none'}")
    if class_names is None:
        columns = [column for column in (clean, *options.vote_columns) if column in train.columns]
        said = (
            (row.get(column), place) for row, place in zip(train.rows, train.places, strict=True) for column in columns
        )
        labels = labels_from(folder, said, train.where)
    else:
        labels = Labels(class_names)
    parts = {name: _part(table, options, labels, weak=name == "train") for name, table in tables.items()}
    functions = options.vote_columns or None
    return same_functions(make_source(labels.class_names, parts, functions), train.where)


def _part(table: Table, options: TextOptions, labels: Labels, *, weak: bool) -> TextPart:
    clean, votes = options.label_column, options.vote_columns
    if clean in votes:
        clean, votes = (None, votes) if weak else (clean, ())
    elif not weak and not any(column in table.columns for column in votes):
        votes = ()
    label_needed = (clean or options.vote_columns[0],) if not votes else ()
    for column in (options.text_column, *votes, *label_needed, options.id_column):
        if column is not None and column not in table.columns:
            raise SamaError(f"{table.where}: expected a column {column!r}, got {', '.join(table.columns) or 'none'}")

    def cells(column: str) -> list[int]:
        return [
            labels(row.get(column), f"{table.where}: {place}: column {column!r}")
            for row, place in zip(table.rows, table.places, strict=True)
        ]

    label = cells(clean) if clean in table.columns else [UNKNOWN] * len(table.rows)
    if not votes and UNKNOWN in label and (weak or set(label) == {UNKNOWN}):
        raise SamaError(
            f"{table.where}: {table.places[label.index(UNKNOWN)]}: column {clean!r}: expected a label, got none"
        )
    return make_part(
        table.where,
        _ids(table, options.id_column),
        table.places,
        [row.get(options.text_column) for row in table.rows],
        label,
        list(zip(*(cells(column) for column in votes), strict=True)) if votes else None,
    )


def _ids(table: Table, column: str | None) -> list[str]:
    if column is None:
        return numbered(table.name, len(table.rows)).tolist()
    for row, place in zip(table.rows, table.places, strict=True):
        if row.get(column) in (None, ""):
            raise SamaError(f"{table.where}: {place}: column {column!r}: expected an id, got none")
    return [str(row[column]) for row in table.rows]
