"""Texts, their votes, the aggregated weak labels, and the splits of every seed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.config import TextDataConfig, TextModelConfig
from sama.data.overlap import overlap_report
from sama.data.root import model_place
from sama.data.splits import stratified_splits
from sama.data.text_manifest import AGGREGATIONS, SPLITS, content_hash, texts_hash
from sama.data.texts import TextOptions, TextPart, TextSource, open_texts
from sama.data.texts.base import UNKNOWN
from sama.data.texts.splits import fingerprints, text_overlap
from sama.data.texts.votes import aggregate, vote_report
from sama.errors import SamaError
from sama.files import write_json, write_parquet
from sama.stages._text_splits import TEST_SEED, divided, drawn_sizes, require_vote, seen


def run(
    *,
    out: Path,
    seeds: tuple[int, ...],
    data_root: Path | None = None,
    data: TextDataConfig,
    model: TextModelConfig,
) -> None:
    """Read the texts, aggregate their votes, and split them for every seed.

    Args:
        out: folder for texts.parquet, dataset.json, tokenizer/ (small BERT), and seed{S}/manifest.{parquet,json}.
        seeds: of the division of the splits, and of the lots that break ties between votes. A test split that is drawn
            from the training part is the same for all.
        data_root: folder that holds the data sets.
        data: source, splits, and how votes become labels.
        model: the encoder; a small BERT has a tokenizer trained on the training texts.

    Raises:
        SamaError: the source cannot be read, the splits do not fit it, or the model's tokenizer cannot be had.
    """
    source = open_texts(options_of(data, data_root))
    _check_measure(data.measure, source.class_names)
    if data.max_texts is not None and data.max_texts < len(source.train):
        source = _fewer(source, data.max_texts, clean_first=bool(drawn_sizes(source, data)))
    table = _table(source)
    contents = fingerprints(source.parts)
    prepared = []
    for seed in seeds:
        rows, facts = manifest_of(source, data, seed)
        facts |= {
            "class_names": list(source.class_names),
            "meta_set": data.meta_set,
            "aggregation": data.aggregation,
            "overlap": _overlap(rows, contents),
            "content_hash": content_hash(table, rows, source.class_names),
            "texts_hash": texts_hash(table),
        }
        prepared.append((out / f"seed{seed}", rows, facts))
    if model.name is None:
        _train_tokenizer(out / "tokenizer", source.train.text, model)
    name = str(out / "tokenizer") if model.name is None else model_place(model.name, data_root)
    cut = _cut(source, name, model.max_length)
    # whatever can fail has been tried; texts first, which fit no manifest of before
    write_parquet(out / "texts.parquet", table)
    for folder, rows, facts in prepared:
        write_parquet(folder / "manifest.parquet", rows)
        write_json(folder / "manifest.json", facts)
    hashes = [facts["content_hash"] for _, _, facts in prepared]
    write_json(out / "dataset.json", _facts(source, data, cut, hashes))


def options_of(data: TextDataConfig, root: Path | None) -> TextOptions:
    """What the source is asked for."""
    return TextOptions(
        name=data.source,
        root=root,
        path=data.path,
        text_column=data.text_column,
        label_column=data.label_column,
        vote_columns=data.vote_columns,
        id_column=data.id_column,
        strip_prefix=data.strip_prefix,
        subset=data.subset,
    )


def _check_measure(measure: str, class_names: tuple[str, ...]) -> None:
    if measure == "binary_f1" and len(class_names) != 2:
        raise SamaError(
            f"data.measure: binary_f1 is of the second of two classes, got {len(class_names)}: expected accuracy, "
            "macro_f1 or micro_f1"
        )


def _fewer(source: TextSource, size: int, *, clean_first: bool) -> TextSource:
    """A subset of the training part in which each class has its share: by the majority of the votes, if there are any
    (texts without a vote are one class more), so that no clean label that is hidden from the learner decides.

    With `clean_first` the texts whose clean label is known, whatever it is, come before the others: splits are drawn
    from these, and few texts would have none of few.
    """
    part, classes = source.train, len(source.class_names)
    label = part.label
    if part.votes is not None:
        require_vote(part.votes, "train")
        found = aggregate(part.votes, part.sample_id, classes, method="majority_vote", uncovered="uniform")
        label = np.where(found.covered, found.hard, classes)
    elif (label == UNKNOWN).any():
        label = np.where(label == UNKNOWN, classes, label)
    first = (part.label != UNKNOWN) & clean_first
    kept = np.zeros(len(part), dtype=bool)
    for rows in (np.flatnonzero(first), np.flatnonzero(~first)):
        wanted = {"kept": min(size - int(kept.sum()), len(rows))}
        kept[rows] = stratified_splits(label[rows], part.sample_id[rows], wanted, 0) == "kept"
    return replace(source, train=part.take(np.flatnonzero(kept)))


def _table(source: TextSource) -> pd.DataFrame:
    frames = []
    for name, part in source.parts.items():
        frame = pd.DataFrame({"sample_id": part.sample_id, "part": name, "text": part.text, "clean_label": part.label})
        if part.votes is not None:
            frame["votes"] = list(part.votes)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    twice = table["sample_id"].to_numpy()[table["sample_id"].duplicated().to_numpy()]
    if len(twice):
        raise SamaError(f"source: the id {twice[0]!r} stands in two parts, expected it once")
    return table


def _train_tokenizer(folder: Path, texts: tuple[str, ...], model: TextModelConfig) -> None:
    from sama.data.texts.tokens import train_wordpiece

    train_wordpiece(texts, model.vocabulary_size, model.max_length).save_pretrained(folder)


def _cut(source: TextSource, tokenizer: str, max_length: int) -> dict[str, int]:
    """How many texts of each part have more tokens than are read of them."""
    from sama.data.texts.tokens import open_tokenizer, tokenize

    opened = open_tokenizer(tokenizer, max_length)
    return {
        name: tokenize(opened, part.text, max_length, sample_id=part.sample_id.tolist())[2]
        for name, part in source.parts.items()
    }


def manifest_of(source: TextSource, data: TextDataConfig, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows of a seed and their counts.

    A held-out text without a label that it could be measured by (`seen`) is in the split `uncovered`; the facts count
    those under `uncovered`, by the split in which they would stand.

    Raises:
        SamaError: the splits do not fit the source, a class has no training text, or none is left.
    """
    classes = len(source.class_names)
    train, held = divided(source, data, seed)
    weak: dict[str, NDArray[np.float64]] = {}
    label, covered = train.label, np.ones(len(train), dtype=bool)
    _check_classes(train, source.class_names)
    if train.votes is not None:
        for method in AGGREGATIONS:
            found = aggregate(train.votes, train.sample_id, classes, method=method, uncovered="uniform", seed=seed)
            hard = np.where(found.covered, found.hard, UNKNOWN)
            weak[method] = found.soft if data.labels == "soft" else _one_hot(hard, classes)
            if method == data.aggregation:
                label, covered = hard, found.covered
    else:
        weak["given"] = _one_hot(seen(train, "train", classes, seed), classes)
    frame = pd.DataFrame({"sample_id": train.sample_id, "split": "train", "label": label, "clean_label": train.label})
    if data.uncovered == "drop":
        frame.loc[~covered, "split"] = "uncovered"
    for method, soft in weak.items():
        frame[method] = list(soft)
    frames = [frame]
    uncovered = {"train": int((~covered).sum()) if data.uncovered == "drop" else 0}
    for name, part in held.items():
        test = name == "test" and source.test is None  # drawn, and one for all seeds: so are the lots of its labels
        known_by = seen(part, name, classes, TEST_SEED if test else seed)
        split = np.where(known_by == UNKNOWN, "uncovered", name)
        uncovered[name] = int((known_by == UNKNOWN).sum())
        frames.append(
            pd.DataFrame({"sample_id": part.sample_id, "split": split, "label": known_by, "clean_label": part.label})
        )
    rows = pd.concat(frames, ignore_index=True).sort_values(["split", "sample_id"], ignore_index=True)
    learned = frame[frame["split"] == "train"]
    judged = learned[(learned["clean_label"] != UNKNOWN) & (learned["label"] != UNKNOWN)]
    facts = {
        "seed": seed,
        "weak": list(weak),
        "examples": rows["split"].value_counts().sort_index().to_dict(),
        "uncovered": {name: count for name, count in uncovered.items() if count},
        "weak_accuracy": float(np.mean(judged["label"] == judged["clean_label"])) if len(judged) else None,
    }
    if not len(learned):
        raise SamaError("data: no training text is left: on all of them every labelling function abstains")
    return rows, facts


def _check_classes(train: TextPart, class_names: tuple[str, ...]) -> None:
    """Two classes or more, each with a training text, by a vote if there are votes; or a `SamaError`."""
    if len(class_names) < 2:
        raise SamaError(f"data: expected two classes or more, got {', '.join(class_names)}")
    if train.votes is not None:
        require_vote(train.votes, "train")
    absent = np.setdiff1d(np.arange(len(class_names)), train.label if train.votes is None else train.votes)
    if len(absent):
        lacks = "a training text" if train.votes is None else "a vote on a training text"
        raise SamaError(
            f"data: class {class_names[absent[0]]!r}: expected {lacks}, got none of {len(train)}: leave the class out,"
            " or take more texts"
        )


def _one_hot(label: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Rows of the identity; uniform where the label is not known."""
    soft = np.full((len(label), classes), 1.0 / classes)
    known = label != UNKNOWN
    soft[known] = np.eye(classes)[label[known]]
    return soft


def _overlap(rows: pd.DataFrame, contents: Mapping[str, bytes]) -> dict[str, Any]:
    """What two splits share, `uncovered` left out: nobody learns from it or is measured on it."""
    counted = rows.query("split != 'uncovered'")
    sample_id, split = counted["sample_id"].to_numpy(str), counted["split"].to_numpy(str)
    names = [name for name in SPLITS if (split == name).any()]
    return overlap_report([contents[name] for name in sample_id.tolist()], sample_id, split, names)


def _facts(source: TextSource, data: TextDataConfig, cut: dict[str, int], hashes: list[str]) -> dict[str, Any]:
    train = source.train
    votes: Mapping[str, Any] | None = None
    if train.votes is not None:
        votes = vote_report(train.votes, train.label, source.class_names, source.functions)
    return {
        "source": data.source,
        "class_names": list(source.class_names),
        "texts": {name: len(part) for name, part in source.parts.items()},
        "clean_labels": {name: int((part.label != UNKNOWN).sum()) for name, part in source.parts.items()},
        "cut": cut,
        "source_facts": dict(source.facts),
        "votes": votes,
        "overlap": text_overlap(source.parts),
        "content_hash": hashes[0],
    }
