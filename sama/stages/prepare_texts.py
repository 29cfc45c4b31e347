"""Texts, their votes, the aggregated weak labels, and the splits of every seed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.config import TextDataConfig, TextModelConfig
from sama.data.root import model_place
from sama.data.splits import split_sizes, stratified_splits
from sama.data.text_manifest import AGGREGATIONS, content_hash
from sama.data.texts import TextOptions, TextPart, TextSource, open_texts
from sama.data.texts.base import ABSTAIN, UNKNOWN
from sama.data.texts.splits import meta_and_validation, text_overlap
from sama.data.texts.votes import aggregate, vote_report
from sama.errors import SamaError
from sama.files import write_json, write_parquet


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
        seeds: of the division of the splits, and of the lots that break ties between votes.
        data_root: folder that holds the data sets.
        data: source, splits, and how votes become labels.
        model: the encoder; a small BERT has a tokenizer trained on the training texts.

    Raises:
        SamaError: the source cannot be read, the splits do not fit it, or the model's tokenizer cannot be had.
    """
    source = open_texts(options_of(data, data_root))
    if data.max_texts is not None and data.max_texts < len(source.train):
        source = _fewer(source, data.max_texts)
    table = _table(source)
    write_parquet(out / "texts.parquet", table)
    if model.name is None:
        _train_tokenizer(out / "tokenizer", source.train.text, model)
    name = str(out / "tokenizer") if model.name is None else model_place(model.name, data_root)
    cut = _cut(source, name, model.max_length)
    hashes = []
    for seed in seeds:
        rows, facts = manifest_of(source, data, seed)
        facts |= {
            "class_names": list(source.class_names),
            "meta_set": data.meta_set,
            "aggregation": data.aggregation,
            "content_hash": content_hash(table, rows, source.class_names),
        }
        hashes.append(facts["content_hash"])
        write_parquet(out / f"seed{seed}" / "manifest.parquet", rows)
        write_json(out / f"seed{seed}" / "manifest.json", facts)
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


def _fewer(source: TextSource, size: int) -> TextSource:
    part = source.train
    balanced = part.label if part.votes is None or (part.label != UNKNOWN).all() else np.zeros(len(part), dtype=int)
    chosen = stratified_splits(balanced, part.sample_id, {"kept": size}, 0)
    return replace(source, train=part.take(np.flatnonzero(chosen == "kept")))


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

    A held-out text that has neither a clean label nor a vote is in the split `uncovered`: it measures nothing.

    Raises:
        SamaError: the splits do not fit the source, a class has no training text, or none is left.
    """
    classes = len(source.class_names)
    train, held = _divided(source, data, seed)
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
        weak["given"] = _one_hot(_seen(train, "train", source, seed), classes)
    frame = pd.DataFrame({"sample_id": train.sample_id, "split": "train", "label": label, "clean_label": train.label})
    if data.uncovered == "drop":
        frame.loc[~covered, "split"] = "uncovered"
    for method, soft in weak.items():
        frame[method] = list(soft)
    frames = [frame]
    for name, part in held.items():
        seen = _seen(part, name, source, seed)
        split = np.where(seen == UNKNOWN, "uncovered", name)
        frames.append(
            pd.DataFrame({"sample_id": part.sample_id, "split": split, "label": seen, "clean_label": part.label})
        )
    rows = pd.concat(frames, ignore_index=True).sort_values(["split", "sample_id"], ignore_index=True)
    learned = frame[frame["split"] == "train"]
    judged = learned[(learned["clean_label"] != UNKNOWN) & (learned["label"] != UNKNOWN)]
    facts = {
        "seed": seed,
        "weak": list(weak),
        "examples": rows["split"].value_counts().sort_index().to_dict(),
        "weak_accuracy": float(np.mean(judged["label"] == judged["clean_label"])) if len(judged) else None,
    }
    if not len(learned):
        raise SamaError("data: no training text is left: on all of them every labelling function abstains")
    return rows, facts


def _divided(source: TextSource, data: TextDataConfig, seed: int) -> tuple[TextPart, dict[str, TextPart]]:
    """The training part and the others by the name of their split."""
    train, held = source.train, {}
    sizes: dict[str, int | float] = {}
    if data.meta_set == "held_out":
        sizes["meta"] = data.splits.meta
    if source.validation is None:
        if data.meta_set in ("divided", "validation_as_both"):
            raise SamaError(
                f"data.meta_set {data.meta_set}: source {data.source} has no validation part: use held_out or training"
            )
        sizes["validation"] = data.splits.validation
    elif data.meta_set in ("divided", "validation_as_both"):
        use = "divided" if data.meta_set == "divided" else "validation_as_both"
        meta, validation = meta_and_validation(source.validation, use=use, meta=data.splits.meta, seed=seed)
        held["validation"] = validation
        if use == "divided":
            held["meta"] = meta
    else:
        held["validation"] = source.validation
    if source.test is not None:
        held["test"] = source.test
    elif data.splits.test is None:
        raise SamaError(f"data.splits.test: source {data.source} has no test part: expected a size, got null")
    else:
        sizes["test"] = data.splits.test
    if sizes:
        observed = _seen(train, "train", source, seed)
        labelled = np.flatnonzero(observed != UNKNOWN)
        wanted = {name: sizes.get(name, 0) for name in ("meta", "validation", "test")}
        counted = split_sizes(len(labelled), **wanted, meta_set="held_out", source=data.source, has_test=True)
        for name, size in sizes.items():
            if counted[name] == 0:
                raise SamaError(
                    f"data.splits.{name}: {size} of the {len(labelled)} labelled training texts is 0: expected one or "
                    "more"
                )
        split = np.full(len(train), "train", dtype="<U10")
        split[labelled] = stratified_splits(
            observed[labelled], train.sample_id[labelled], {name: counted[name] for name in sizes}, seed
        )
        held |= {name: train.take(np.flatnonzero(split == name)) for name in sizes}
        train = train.take(np.flatnonzero(split == "train"))
    return train, held


def _require_vote(votes: NDArray[np.int64], name: str) -> None:
    if not (votes != ABSTAIN).any():
        raise SamaError(f"data: {name}: all {votes.shape[1]} labelling functions abstain on all {len(votes)} texts")


def _check_classes(train: TextPart, class_names: tuple[str, ...]) -> None:
    """Two classes or more, each with a training text, by a vote if there are votes; or a `SamaError`."""
    if len(class_names) < 2:
        raise SamaError(f"data: expected two classes or more, got {', '.join(class_names)}")
    if train.votes is not None:
        _require_vote(train.votes, "train")
    absent = np.setdiff1d(np.arange(len(class_names)), train.label if train.votes is None else train.votes)
    if len(absent):
        lacks = "a training text" if train.votes is None else "a vote on a training text"
        raise SamaError(
            f"data: class {class_names[absent[0]]!r}: expected {lacks}, got none of {len(train)}: leave the class out,"
            " or take more texts"
        )


def _seen(part: TextPart, name: str, source: TextSource, seed: int) -> NDArray[np.int64]:
    """The clean labels if all are known, or else the majority of the votes, `UNKNOWN` where all functions abstain."""
    if (part.label != UNKNOWN).all():
        return part.label
    if part.votes is None:
        first = str(part.sample_id[part.label == UNKNOWN][0])
        raise SamaError(
            f"data: {name}: text {first!r} has neither a label nor votes: name data.label_column or data.vote_columns"
        )
    _require_vote(part.votes, name)
    found = aggregate(
        part.votes, part.sample_id, len(source.class_names), method="majority_vote", uncovered="uniform", seed=seed
    )
    return np.where(found.covered, found.hard, UNKNOWN)


def _one_hot(label: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Rows of the identity; uniform where the label is not known."""
    soft = np.full((len(label), classes), 1.0 / classes)
    known = label != UNKNOWN
    soft[known] = np.eye(classes)[label[known]]
    return soft


def _facts(source: TextSource, data: TextDataConfig, cut: dict[str, int], hashes: list[str]) -> dict[str, Any]:
    train = source.train
    votes: Mapping[str, Any] | None = None
    if train.votes is not None:
        votes = vote_report(train.votes, train.label, source.class_names, source.functions)
    return {
        "source": data.source,
        "class_names": list(source.class_names),
        "texts": {name: len(part) for name, part in source.parts.items()},
        "cut": cut,
        "source_facts": dict(source.facts),
        "votes": votes,
        "overlap": text_overlap(source.parts),
        "content_hash": hashes[0],
    }
