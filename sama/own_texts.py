"""`sama init`: from a table of texts to a configuration that fits it, with its reasons as comments."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sama.config import SplitConfig, TextDataConfig
from sama.data.sources.base import listed_class_names
from sama.data.texts import open_texts
from sama.data.texts.base import UNKNOWN, TextSource
from sama.data.texts.csv_file import read_csv
from sama.data.texts.json_lines import read_json_lines
from sama.data.texts.splits import fingerprints
from sama.data.texts.tables import Table, tables_of
from sama.data.texts.votes import vote_report
from sama.errors import SamaError
from sama.own_columns import Columns, find_columns
from sama.own_data import experiment_name, write_checked
from sama.own_texts_config import Found, config_text
from sama.stages.prepare_texts import manifest_of, options_of

FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Path], Table]]] = {
    "json_lines": ((".jsonl",), read_json_lines),
    "csv": ((".csv", ".tsv"), read_csv),
}
META, VALIDATION, TEST = 0.1, 0.1, 0.2  # of the training part
MOST_HELD_OUT = 0.9  # of the training texts with a clean label, where few have one
DIVIDED = 0.5  # of a clean validation part, the meta set
LONGEST = 128  # tokens; a small BERT reads no more


def write_config(path: Path, texts: Path, force: bool, asked: Columns) -> Found:
    """Look at `texts`, a file or a folder, and write the configuration `path`, an overlay on config/texts.yaml.

    Raises:
        SamaError: `path` is there and `force` is not given, gives no name to the experiment, or the table is missing or
            cannot be learned from: no column of texts or labels, one class, too few texts, or what a source refuses.
    """
    name = experiment_name(path, force)
    found = look_at(texts, asked)
    write_checked(path, config_text(name, found))
    return found


def look_at(texts: Path, asked: Columns) -> Found:
    """What is in a table, or in a folder of tables; errors are those of `write_config`."""
    place = Path(texts).absolute()
    kind = _kind(texts, place)
    tables = tables_of(place, *FORMATS[kind])  # none is empty
    columns = find_columns(tables, asked, listed_class_names(place if place.is_dir() else place.parent))
    data = TextDataConfig(
        source=kind,  # pyright: ignore[reportArgumentType]
        path=place.name,
        text_column=columns.text or "text",
        label_column=columns.label,
        vote_columns=columns.votes,
        id_column=columns.id,
    )
    source = open_texts(options_of(data, place.parent))
    data = _with_splits(data, source)
    try:
        rows, facts = manifest_of(source, data, seed=0)
    except SamaError as error:
        raise SamaError(f"{texts}: {error}") from error
    _check_held_out(texts, rows, source)
    if source.train.votes is None:
        raise ValueError(f"expected votes of {', '.join(columns.votes)}, got none")
    length, longer = _lengths(source.train.text)
    learned = rows[(rows["split"] == "train") & (rows["label"] != UNKNOWN)]
    return Found(
        data=data,
        place=place,
        passed=columns.passed,
        class_names=source.class_names,
        counts=tuple(np.bincount(learned["label"], minlength=len(source.class_names)).tolist()),
        texts={name: len(part) for name, part in source.parts.items()},
        clean_labels={name: int((part.label != UNKNOWN).sum()) for name, part in source.parts.items()},
        examples=facts["examples"],
        uncovered=facts["uncovered"],
        votes=vote_report(source.train.votes, source.train.label, source.class_names, source.functions),
        clean_meta=_clean(rows, "meta"),
        clean_test=_clean(rows, "test"),
        length=length,
        longer=longer,
    )


def _kind(texts: Path, place: Path) -> str:
    """The registered source that reads what stands there."""
    for kind, (suffixes, _) in FORMATS.items():
        files = [place / f"train{suffix}" for suffix in suffixes] if place.is_dir() else [place]
        if any(file.is_file() and file.suffix in suffixes for file in files):
            return kind
    got = "no such file" if not place.exists() else "a folder without it" if place.is_dir() else f"{place.suffix!r}"
    raise SamaError(
        f"{texts}: {got}, expected a file .jsonl, .csv or .tsv, or a folder with train.jsonl, train.csv or train.tsv"
    )


def _with_splits(data: TextDataConfig, source: TextSource) -> TextDataConfig:
    """A validation part with clean labels is divided; without one the meta set comes out of the training part.

    Where some training texts have a clean label, splits come out of these: larger fractions, as far as they suffice for
    the usual sizes.
    """
    clean = source.validation is not None and bool((source.validation.label != UNKNOWN).any())
    known = float((source.train.label != UNKNOWN).mean())
    more = min(1 / known, MOST_HELD_OUT / (META + VALIDATION + TEST)) if known else 1.0

    def enlarged(fraction: float) -> float:
        return int(100 * more * fraction + 1e-6) / 100

    splits = SplitConfig(
        meta=DIVIDED if clean else enlarged(META),
        validation=enlarged(VALIDATION),
        test=enlarged(TEST) if source.test is None else None,
    )
    return data.model_copy(update={"meta_set": "divided" if clean else "held_out", "splits": splits})


def _check_held_out(texts: Path, rows: Any, source: TextSource) -> None:
    """Every held-out split has as many distinct texts as there are classes, and labels of two classes or more: with
    fewer texts one of them is a step of the measure that no difference between methods is as large as, and with one
    class whoever always says it is right."""
    contents, classes = fingerprints(source.parts), len(source.class_names)
    for name in ("meta", "validation", "test"):
        split = rows[rows["split"] == name]
        size = len({contents[sample_id] for sample_id in split["sample_id"].tolist()})
        if size < classes:
            raise SamaError(
                f"{texts}: the split {name} has {size} distinct texts, fewer than the {classes} classes: expected more"
                " (with clean labels, where some have one), or a configuration written by hand with larger data.splits"
            )
        labels = sorted(set(split["label"].tolist()))
        if len(labels) == 1:
            raise SamaError(
                f"{texts}: all {len(split)} texts of the split {name} have the label"
                f" {source.class_names[labels[0]]!r}: expected texts of other classes too (with clean labels, where"
                " some have one)"
            )


def _clean(rows: Any, split: str) -> bool:
    return bool((rows["clean_label"][rows["split"] == split] != UNKNOWN).all())


def _lengths(texts: tuple[str, ...]) -> tuple[int, int]:
    """Tokens that 19 of 20 texts have at most, in sixteens, and how many texts have more, at 1.3 tokens a word."""
    tokens = np.array([2 + 1.3 * len(re.findall(r"\w+|[^\w\s]", text)) for text in texts])
    length = int(min(LONGEST, 16 * np.ceil(np.quantile(tokens, 0.95) / 16)))
    return length, int((tokens > length).sum())
