"""A data set of a hub by name, or a local copy of one, through the package `datasets` (extra `text`).

A `path` that is a folder (absolute, or below the data root) is a local copy, written by `save_to_disk` or laid out as
`load_dataset` takes a folder; any other is a name on the hub. A column that is a `ClassLabel` is read by its own names,
votes too: two columns may order the same classes otherwise. The classes are those of the label column's, without such
a column those of the vote columns'; where the label column has no names of its own, they are found in the rows.
"""

from pathlib import Path
from typing import Any

from sama import hub
from sama.data.texts.base import TextOptions, TextSource
from sama.data.texts.tables import PART_NAMES, Table, open_tables
from sama.errors import SamaError


def open_hub(options: TextOptions) -> TextSource:
    """The texts of the splits train, validation (or valid, dev) and test; ids are `SPLIT/ROW`.

    Raises:
        SamaError: no name, the package is missing, the hub cannot be reached or has no such set, no train split, or the
            rows are not as the options say.
    """
    if options.path is None:
        raise SamaError("data.path: source 'hub' needs the name of the data set (or the folder of a copy), got null")
    where = f"hub data set {options.path!r}"
    splits = _load(options, options.path, where)
    tables: dict[str, Table] = {}
    class_names: dict[str, dict[str, None]] = {
        column: {} for column in (options.label_column, *options.vote_columns) if column is not None
    }
    for part, names in PART_NAMES.items():
        found = [name for name in names if name in splits]
        if found:
            held = splits[found[0]]
            names = {column: getattr(held.features.get(column), "names", None) or [] for column in class_names}
            for column, own in names.items():
                class_names[column] |= dict.fromkeys(own)
            rows = [_named(row, names) for row in held.to_list()]
            tables[part] = Table(
                f"{where}, split {found[0]}",
                found[0],
                tuple(held.column_names),
                rows,
                [f"row {i}" for i in range(len(rows))],
            )
    if "train" not in tables:
        raise SamaError(f"{where}: expected a split 'train', got {', '.join(map(str, splits)) or 'none'}")
    if any(options.label_column in table.columns for table in tables.values()):
        listed = class_names[str(options.label_column)]
    else:
        listed = dict.fromkeys(name for column in options.vote_columns for name in class_names[column])
    return open_tables(tables, Path(options.path), options, tuple(listed) or None)


def _named(row: dict[str, Any], names: dict[str, list[str]]) -> dict[str, Any]:
    """The row with names for the indices of its columns of `ClassLabel`; -1 stays, an index outside too."""
    found = {
        column: own[row[column]]
        for column, own in names.items()
        if isinstance(row.get(column), int) and 0 <= row[column] < len(own)
    }
    return row | found


def _load(options: TextOptions, name: str, where: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SamaError(f"{where}: needs the package datasets: pip install 'sama[text]'") from error
    folder = Path(options.root or "") / name
    local = folder.is_dir() and (options.root is not None or folder.is_absolute())
    if not local and Path(name).is_absolute():
        raise SamaError(f"{where}: expected a folder, or the name of a data set on the hub, found nothing at {name}")
    try:
        if not local:
            with hub.quiet():
                return datasets.load_dataset(name, options.subset)
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder), options.subset)
    except Exception as error:  # whatever the hub's client raises: the user can mend it in one of two ways
        reason = " ".join(str(error).split()) or type(error).__name__
        if local:
            raise SamaError(f"{folder}: not a data set that datasets can read ({reason})") from error
        raise SamaError(
            f"{where}: {reason}: where the hub can be reached, datasets.load_dataset({name!r}).save_to_disk(FOLDER) "
            "makes a local copy; then set data.path to that folder"
        ) from error
