"""A results folder of an experiment on texts as the report needs it: read and checked.

Only what `summary.json` announces is read: its seeds and methods. A file that should be there and is not stops the
report with its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sama.config import WEIGHTING, TextsConfig
from sama.data import text_manifest
from sama.data.text_manifest import TextDataset
from sama.data.texts.base import UNKNOWN
from sama.errors import SamaError
from sama.files import read_json
from sama.report import reading
from sama.report.reading import Metrics, Weights
from sama.report.style import Look
from sama.report.texts_corrections import corrections, corrects
from sama.report.texts_style import looks

SUSPECT_COLUMNS = ("sample_id", "text", "observed", "suggested", "suspicion", "weight")
WEIGHT_COLUMNS = ("sample_id", "text", "label", "weight", "seeds")


@dataclass(frozen=True)
class Suspects:
    """What the stage `suspect_texts` found, as it is written."""

    summary: dict[str, Any]
    weights: pd.DataFrame  # lowest first
    labels: pd.DataFrame  # most suspect first


@dataclass(frozen=True)
class TextResults:
    """Everything the report on texts shows; lists have one entry a seed.

    Attributes:
        looks: method -> its name, colour and marker, in the order of the configuration.
        test: method -> {measure: [...], "accuracy": [...]}.
        validation: method -> the measure of the kept weights.
        cost: method -> in units of the cheapest training of the seed.
        measured_against: "validation", "test" -> "clean" or "weak" labels.
        detection: method -> {"auc": [...], "average_precision": [...]}; empty where nothing is known.
        correction: method -> {"weak_accuracy": [...], "corrected_accuracy": [...]}.
        dataset: content of dataset.json.
        data: the texts of each seed with their splits and labels.
        label_accuracy: aggregation -> fraction of right labels on training texts that are covered.
        curves: method -> metrics of its finetuning.
        weights: method with weights -> those of the texts that it visited; if some of these are judged, of those alone.
        tuning: method -> candidates, and which is chosen.
        corrected: the labels that a method corrected, the surest first; None if none corrects.
    """

    experiment: str
    measure: str
    seeds: tuple[int, ...]
    looks: dict[str, Look]
    test: dict[str, dict[str, list[float]]]
    validation: dict[str, list[float]]
    cost: dict[str, list[float]]
    measured_against: dict[str, str]
    detection: dict[str, dict[str, list[float]]]
    correction: dict[str, dict[str, list[float]]]
    dataset: dict[str, Any]
    data: tuple[TextDataset, ...]
    label_accuracy: dict[str, list[float]]
    curves: dict[str, list[Metrics]]
    weights: dict[str, list[Weights]]
    tuning: dict[str, dict[str, Any]]
    suspects: Suspects
    corrected: pd.DataFrame | None

    @property
    def measured(self) -> dict[str, list[float]]:
        """Method -> the measure on the test split."""
        return {method: values[self.measure] for method, values in self.test.items()}

    @property
    def clean(self) -> dict[str, str]:
        """Id of a training text -> its clean label by name, where it is known."""
        names = self.data[0].class_names
        return {
            sample_id: names[label]
            for data in self.data
            for sample_id, label in zip(
                data.split("train").sample_id.tolist(), data.split("train").clean_label.tolist(), strict=True
            )
            if label != UNKNOWN
        }


def load(results: Path, config: TextsConfig) -> TextResults:
    """Read `results/{experiment}`; methods come in the order of the configuration.

    Raises:
        SamaError: a file is missing, or does not say what the contract asks for.
    """
    summary = _summary(results / "summary.json", config)
    seeds, methods = tuple(summary["seeds"]), config.finetuning.methods
    data = tuple(
        text_manifest.load(results / "data/texts.parquet", results / f"data/seed{seed}/manifest.parquet")
        for seed in seeds
    )
    folders = {method: [results / f"models/seed{seed}/{method}" for seed in seeds] for method in methods}
    weights = {m: [f / "weights.parquet" for f in own] for m, own in folders.items() if m in WEIGHTING}
    return TextResults(
        experiment=summary["experiment"],
        measure=summary["measure"],
        seeds=seeds,
        looks=looks(methods, config.meta.method),
        test=_ordered(summary["test"], methods),
        validation=_ordered(summary["validation"], methods),
        cost=_ordered(summary["cost"], methods),
        measured_against=summary["measured_against"],
        detection=_ordered(summary["noise_detection"], methods),
        correction=_ordered(summary["correction"], methods),
        dataset=_object(results / "data/dataset.json", ("source", "class_names", "texts", "votes", "overlap")),
        data=data,
        label_accuracy=_label_accuracy(data),
        curves={m: [reading.metrics(folder / "metrics.jsonl") for folder in own] for m, own in folders.items()},
        weights={m: [_weights(*pair) for pair in zip(paths, data, strict=True)] for m, paths in weights.items()},
        tuning={m: _object(results / f"tuning/{m}.json", ("candidates", "chosen")) for m in methods},
        suspects=_suspects(results / "suspects"),
        corrected=next((corrections(paths, data) for paths in weights.values() if corrects(paths[0])), None),
    )


def _object(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise SamaError(f"{path}: expected an object, got {type(content).__name__}")
    if absent := [key for key in keys if key not in content]:
        raise SamaError(f"{path}: expected a key {absent[0]!r}, got {', '.join(sorted(content))}")
    return content


def _summary(path: Path, config: TextsConfig) -> dict[str, Any]:
    members = ("test", "validation", "cost", "noise_detection", "correction")
    summary = _object(path, ("experiment", "measure", "seeds", "measured_against", *members))
    for key in members[:3]:
        if absent := [method for method in config.finetuning.methods if method not in summary[key]]:
            raise SamaError(f"{path}: {key}: expected the method {absent[0]!r}, got {', '.join(summary[key])}")
    for key in members:
        reading.check_lists(path, key, summary[key], len(summary["seeds"]))
    return summary


def _ordered(by_method: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    return {method: by_method[method] for method in methods if method in by_method}


def _label_accuracy(data: Sequence[TextDataset]) -> dict[str, list[float]]:
    """Of the labels of each aggregation; a text on which all functions abstain, whose label is uniform, counts not."""
    found: dict[str, list[float]] = {}
    for dataset in data:
        train = dataset.split("train")
        for name, soft in train.weak.items():
            judged = (train.clean_label != UNKNOWN) & (np.ptp(soft, axis=1) > 0)
            if judged.any():
                right = soft[judged].argmax(axis=1) == train.clean_label[judged]
                found.setdefault(name, []).append(float(right.mean()))
    return {name: values for name, values in found.items() if len(values) == len(data)}


def _weights(path: Path, data: TextDataset) -> Weights:
    train = data.split("train")
    (weight,) = reading.columns(path, ["weight"], train, data.path)
    seen = np.isfinite(weight)  # a short training does not visit every text
    judged = train.judged & seen
    if not judged.any():
        return Weights(weight[seen], None, None, None)
    return Weights(weight[judged], None, None, (train.label != train.clean_label)[judged])


def _suspects(folder: Path) -> Suspects:
    return Suspects(
        _object(folder / "summary.json", ("method", "texts", "suspects", "checked")),
        reading.table(folder / "weights.csv", WEIGHT_COLUMNS, ("weight",)),
        reading.table(folder / "suspect_labels.csv", SUSPECT_COLUMNS, ("suspicion", "weight")),
    )
