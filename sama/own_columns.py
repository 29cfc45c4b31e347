"""Which column of somebody's table holds the texts, which the labels that may be wrong, and which the clean ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sama.data.texts.base import ABSTAIN
from sama.data.texts.labels import whole_number
from sama.data.texts.tables import Table
from sama.errors import SamaError

MOST_CLASSES = 50  # a column of more values, or of values that stand once, holds no labels


@dataclass(frozen=True)
class Columns:
    """The columns by what they hold; asked for by name, or found: None and () are to be found."""

    text: str | None = None
    label: str | None = None  # clean labels
    votes: tuple[str, ...] = ()  # labels that may be wrong, one labelling function a column
    id: str | None = None
    passed: tuple[str, ...] = ()  # columns of labels too, as it seems, of other classes: left out


def find_columns(tables: Mapping[str, Table], asked: Columns, class_names: Sequence[str] | None) -> Columns:
    """What the columns hold, as far as `asked` leaves it open.

    Texts: the column `text`, or else the one of the longest strings. A column of labels has few values, which come
    again. Labels that may be wrong: all columns whose values are among the classes, which are those of `class_names`,
    of the clean column (if it is filled for some texts alone: of all columns that have these and more, too), of a
    column `label`, or of the column of most values, in this order. Clean: nothing that stands in the training part
    unless it is asked for; a column that the held-out parts alone have. If all labels are in one column that is asked
    for as clean, it is clean in the held-out parts alone.

    Raises:
        SamaError: there is no such column, or none is found, or which they are is open.
    """
    train = tables["train"]
    held_out = [table for name, table in tables.items() if name != "train"]
    there = {column for table in tables.values() for column in table.columns}
    for column in (asked.text, asked.label, *asked.votes):
        if column is not None and column not in there:
            raise SamaError(f"{train.where}: expected a column {column!r}, got {', '.join(train.columns) or 'none'}")
    values = {column: found for column in train.columns if (found := _classes(train, column)) is not None}
    text = asked.text or _text_column(train, {*asked.votes, asked.label, *values})
    values.pop(text, None)
    clean = asked.label
    passed: tuple[str, ...] = ()
    votes = asked.votes
    if not votes:
        among = {column: found for column, found in values.items() if column != clean}
        partly = any(_label(row.get(clean or "")) == "" for row in train.rows)
        votes, passed = _of_the_classes(train, among, values.get(clean or ""), class_names, partly=partly)
    if clean is None and not asked.votes:
        clean = _held_out_alone(train, held_out, {text, *votes}, {value for vote in votes for value in values[vote]})
    both = clean is not None and clean in train.columns and any(clean in table.columns for table in held_out)
    if not votes and both:
        votes = (str(clean),)
    if not votes and clean is not None:
        raise SamaError(
            f"{train.where}: {clean!r} is said to be clean and no other column holds labels: expected some that may"
            " be wrong (--vote-columns)"
        )
    if not votes:
        raise SamaError(
            f"{train.where}: expected a column of labels beside {text!r}, of few values that come again, got"
            f" {', '.join(column for column in train.columns if column != text) or 'none'}: name it by --vote-columns"
        )
    if clean in votes and not both:
        raise SamaError(f"{train.where}: {clean!r} cannot be clean and a vote: there is no held-out part")
    return Columns(text, clean, votes, _ids(tables), passed)


def _of_the_classes(
    train: Table,
    among: Mapping[str, frozenset[str]],
    clean: frozenset[str] | None,
    class_names: Sequence[str] | None,
    *,
    partly: bool,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns whose values are among the classes, and the others; `partly`: some texts have no clean label."""
    if not among:
        return (), ()
    if class_names is not None:
        given = frozenset(class_names)
    elif clean:
        more = [found for found in among.values() if partly and found >= clean]  # few labels may lack a class
        given = clean.union(*more)
    else:
        given = among.get("label")
    classes = given or max(among.values(), key=len)
    votes = tuple(column for column, found in among.items() if found <= classes)
    others = tuple(column for column in among if column not in votes)
    if others and given is None:
        raise SamaError(
            f"{train.where}: columns {', '.join(among)} may hold labels, of other classes each: name those that do by"
            " --vote-columns"
        )
    return votes, others


def _held_out_alone(train: Table, held_out: Sequence[Table], taken: set[str], classes: set[str]) -> str | None:
    """The column of classes that the held-out parts have and the training part has not."""
    found = [
        column
        for column in dict.fromkeys(column for table in held_out for column in table.columns)
        if column not in train.columns
        and column not in taken
        and all(_values(table, column) for table in held_out)
        and {value for table in held_out for value in _values(table, column) or ()} <= classes
    ]
    return found[0] if len(found) == 1 else None


def _text_column(train: Table, labels: set[str | None]) -> str:
    if "text" in train.columns:
        return "text"
    lengths: dict[str, float] = {}
    for column in train.columns:
        cells = [row.get(column) for row in train.rows]
        strings = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
        if column not in labels and strings and len(strings) == len(cells):
            lengths[column] = sum(map(len, strings)) / len(strings)
    if not lengths:
        raise SamaError(
            f"{train.where}: expected a column of texts, got {', '.join(train.columns) or 'none'}: name it by"
            " --text-column"
        )
    return max(lengths, key=lambda column: lengths[column])


def _classes(table: Table, column: str) -> frozenset[str] | None:
    """The values of a column of labels; None if it seems to hold something else."""
    values = _values(table, column)
    if not values or len(values) > MOST_CLASSES:
        return None
    said = sum(_label(row.get(column)) != "" for row in table.rows)
    return values if said >= 2 * len(values) else None


def _values(table: Table, column: str) -> frozenset[str] | None:
    """What stands in a column as labels, abstentions left out; None if something there is no label."""
    found = {_label(row.get(column)) for row in table.rows}
    return None if None in found else frozenset(str(value) for value in found) - {""}


def _label(value: Any) -> str | None:
    """A class name or index as a string, "" for an abstention, None for what is no label."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if (whole := whole_number(value)) is not None:
        return "" if whole == ABSTAIN else str(whole)
    return value.strip() if isinstance(value, str) else None


def _ids(tables: Mapping[str, Table]) -> str | None:
    """The column `id`, if every row has one of its own."""
    found = [row.get("id") for table in tables.values() for row in table.rows]
    own = all(isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() for value in found)
    return "id" if own and len({str(value) for value in found}) == len(found) else None
