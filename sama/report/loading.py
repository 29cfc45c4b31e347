"""A results folder as the report needs it: read, checked, nothing computed that a stage has already written.

Only what `summary.json` announces is read: its seeds, its methods, its ratios. A file that should be there and is not
stops the report with its name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.data import manifest
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import read_json, read_parquet

MEMBERS = ("full", "clean", "meta", "pruned", "noise_detection", "search_cost")

Metrics = dict[str, NDArray[np.float64]]  # "step" and each metric, one entry a line, NaN where a line has none


@dataclass(frozen=True)
class Weights:
    """Importance weights of the train split of one seed, in the order of its sample ids. All arrays: [n]."""

    weight: NDArray[np.float64]
    loss: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    wrong: NDArray[np.bool_] | None  # mislabelled; None where clean labels are not known

    @property
    def relative(self) -> NDArray[np.float64]:
        """Weights divided by their mean: their common scale means nothing where a batch is normalised."""
        mean = self.weight.mean()
        return self.weight / mean if mean > 0 else self.weight


@dataclass(frozen=True)
class Suspects:
    """What the stage `suspects` found: its summary, and its most suspect labels first, names as they are written."""

    summary: dict[str, Any]
    labels: pd.DataFrame  # sample_id, observed, suggested, suspicion, held_out, weight


@dataclass(frozen=True)
class Results:
    """Everything the report shows.

    Attributes:
        full, clean, meta: test accuracy, one value a seed; None where it was not measured.
        pruned: method -> ratio -> test accuracy, one value a seed; ratios ascend.
        detection: method -> {"auc": [...], "average_precision": [...]}; empty without known mislabelled examples.
        search_cost: method -> cost, one value a seed, in full trainings.
        dataset: content of dataset.json.
        data: seed -> the examples with their splits and labels.
        overlap: seed -> pair of splits -> what stands in both.
        weights: seed -> importance weights; empty if nothing was meta-trained.
        suspicion: method -> one (mislabelled, -score) pair a seed, for the train split.
        curves: cell ("meta", "full", "METHOD_RATIO" of the lowest ratio, …) -> metrics, one entry a seed.
        kept_noise: method -> ratio -> fraction of mislabelled examples among the kept ones, one value a seed.
        suspects: labels that held-out predictions contradict; None if nothing was meta-trained.
    """

    experiment: str
    seeds: tuple[int, ...]
    full: list[float] | None
    clean: list[float] | None
    meta: list[float] | None
    pruned: dict[str, dict[float, list[float]]]
    detection: dict[str, dict[str, list[float]]]
    search_cost: dict[str, list[float]]
    dataset: dict[str, Any]
    data: dict[int, Dataset]
    overlap: dict[int, dict[str, Any]]
    weights: dict[int, Weights]
    suspicion: dict[str, list[tuple[NDArray[np.bool_], NDArray[np.float64]]]]
    curves: dict[str, list[Metrics]]
    kept_noise: dict[str, dict[float, list[float]]]
    suspects: Suspects | None

    @property
    def clean_known(self) -> bool:
        """Whether the clean label of every example is known."""
        return all(data.clean_label is not None for data in self.data.values())

    @property
    def ratios(self) -> list[float]:
        """All pruning ratios, ascending."""
        return sorted({ratio for by_ratio in self.pruned.values() for ratio in by_ratio})

    def at(self, ratio: float) -> dict[str, list[float]]:
        """Method -> accuracy, one value a seed, for the methods that were pruned at `ratio`."""
        return {method: by_ratio[ratio] for method, by_ratio in self.pruned.items() if ratio in by_ratio}

    def noise(self, split: str) -> list[float]:
        """Fraction of mislabelled examples in `split`, one value a seed; clean labels must be known."""
        return [float(wrong.mean()) for data in self.data.values() if (wrong := mislabelled(data, split)) is not None]


def mislabelled(data: Dataset, split: str) -> NDArray[np.bool_] | None:
    """Which examples of `split` have a wrong label, in the order of their ids; None where that is not known."""
    part = data.split(split)
    return None if part.clean_label is None else part.label != part.clean_label


def load(results: Path, order: Sequence[str] = (), data_root: Path | None = None) -> Results:
    """Read `results/{experiment}`; methods come in the given order, others after them by name.

    `data_root` is the folder that holds the data sets, where images stay encoded in it.

    Raises:
        SamaError: a file is missing or does not say what the contract asks for.
    """
    summary = _summary(results / "summary.json")
    seeds = tuple(summary["seeds"])
    pruned = {
        method: {float(ratio): by_ratio[ratio]["accuracy"] for ratio in sorted(by_ratio, key=float)}
        for method, by_ratio in _ordered(summary["pruned"], order).items()
    }
    detection = _ordered(summary["noise_detection"], order)
    data = {seed: _data(results, seed, data_root) for seed in seeds}
    return Results(
        experiment=summary["experiment"],
        seeds=seeds,
        full=summary["full"].get("accuracy"),
        clean=summary["clean"].get("accuracy"),
        meta=summary["meta"].get("accuracy"),
        pruned=pruned,
        detection=detection,
        search_cost=_ordered(summary["search_cost"], order),
        dataset=_dataset(results / "data/dataset.json"),
        data=data,
        overlap={seed: read_json(results / f"data/seed{seed}/manifest.json").get("overlap", {}) for seed in seeds},
        weights={seed: _weights(results, seed, data[seed]) for seed in seeds} if summary["meta"] else {},
        suspicion={method: [_suspicion(results, seed, method, data[seed]) for seed in seeds] for method in detection},
        curves=_curves(results, seeds, summary, pruned),
        kept_noise=_kept_noise(results, pruned, data) if detection else {},
        suspects=_suspects(results / "suspects") if summary["meta"] else None,
    )


def _summary(path: Path) -> dict[str, Any]:
    summary = read_json(path)
    if not isinstance(summary, dict):
        raise SamaError(f"{path}: expected an object, got {type(summary).__name__}")
    absent = [key for key in ("experiment", "seeds", *MEMBERS) if key not in summary]
    if absent:
        raise SamaError(f"{path}: expected a key {absent[0]!r}, got {', '.join(sorted(summary))}")
    if not summary["pruned"]:
        raise SamaError(f"{path}: expected at least one method under 'pruned', got none")
    for key in MEMBERS:
        _check_lists(path, key, summary[key], len(summary["seeds"]))
    return summary


def _check_lists(path: Path, where: str, value: Any, count: int) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_lists(path, f"{where}.{key}", inner, count)
        return
    if not isinstance(value, list) or len(value) != count or not all(isinstance(v, int | float) for v in value):
        raise SamaError(f"{path}: {where}: expected {count} numbers, one a seed, got {value!r}")


def _ordered(by_method: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    known = [method for method in order if method in by_method]
    return {method: by_method[method] for method in [*known, *sorted(set(by_method) - set(known))]}


def _dataset(path: Path) -> dict[str, Any]:
    dataset = read_json(path)
    absent = [key for key in ("source", "class_names", "image_shape", "examples") if key not in dataset]
    if absent:
        raise SamaError(f"{path}: expected a key {absent[0]!r}, got {', '.join(sorted(dataset))}")
    return dataset


def _data(results: Path, seed: int, data_root: Path | None) -> Dataset:
    index = results / "data/images.parquet"
    images = index if index.is_file() else results / "data/images.npy"
    return manifest.load(images, results / f"data/seed{seed}/manifest.parquet", data_root=data_root)


def _columns(path: Path, columns: Sequence[str], data: Dataset) -> list[NDArray[np.float64]]:
    """The columns of a table that has one row for each training example, in the order of the train split."""
    frame = read_parquet(path, ["sample_id", *columns]).sort_values("sample_id", ignore_index=True)
    ids, train = frame["sample_id"].to_numpy(str), data.split("train").sample_id
    if not np.array_equal(ids, train):
        odd = sorted(set(ids.tolist()) ^ set(train.tolist()))
        problem = f"{odd[0]} stands in only one of the two" if odd else "an id stands twice"
        raise SamaError(f"{path}: expected the training examples of {data.path}, once each, but {problem}")
    return [frame[column].to_numpy(np.float64) for column in columns]


def _weights(results: Path, seed: int, data: Dataset) -> Weights:
    path = results / f"meta/seed{seed}/weights.parquet"
    return Weights(*_columns(path, ["weight", "loss", "uncertainty"], data), wrong=mislabelled(data, "train"))


def _suspicion(results: Path, seed: int, method: str, data: Dataset) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    (score,) = _columns(results / f"scores/seed{seed}/{method}.parquet", ["score"], data)
    return _known_wrong(results, data), -score


def _known_wrong(results: Path, data: Dataset) -> NDArray[np.bool_]:
    wrong = mislabelled(data, "train")
    if wrong is None:
        raise SamaError(f"{data.path}: no column 'clean_label', but {results / 'summary.json'} has noise_detection")
    return wrong


def _kept_noise(
    results: Path, pruned: Mapping[str, Mapping[float, Any]], data: Mapping[int, Dataset]
) -> dict[str, dict[float, list[float]]]:
    noise: dict[str, dict[float, list[float]]] = {method: {} for method in pruned}
    for seed, examples in data.items():
        train, wrong = examples.split("train").sample_id, _known_wrong(results, examples)
        for method, by_ratio in pruned.items():
            for ratio in by_ratio:
                path = results / f"kept/seed{seed}/{method}_{ratio}.parquet"
                ids = read_parquet(path, ["sample_id"])["sample_id"].to_numpy(str)
                kept = np.isin(train, ids)
                if kept.sum() != len(ids) or not len(ids):
                    raise SamaError(f"{path}: expected some training examples of {examples.path}, once each")
                noise[method].setdefault(ratio, []).append(float(wrong[kept].mean()))
    return noise


def _suspects(folder: Path) -> Suspects:
    path = folder / "suspect_labels.csv"
    try:
        labels = pd.read_csv(path, dtype=str, keep_default_na=False)  # classes may be called NA, or 1
        columns = ["sample_id", "observed", "suggested", "suspicion", "held_out", "weight"]
        if missing := [name for name in columns if name not in labels]:
            raise SamaError(f"{path}: expected a column {missing[0]!r}, got {', '.join(labels)}")
        labels = pd.DataFrame(labels, columns=columns).replace({"weight": {"": "nan"}}).astype({"weight": float})
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except ValueError as error:
        raise SamaError(f"{path}: not the table of suspect labels ({error})") from error
    return Suspects(read_json(folder / "summary.json"), labels)


def _curves(
    results: Path, seeds: Sequence[int], summary: Mapping[str, Any], pruned: Mapping[str, Mapping[float, Any]]
) -> dict[str, list[Metrics]]:
    lowest = min(ratio for by_ratio in pruned.values() for ratio in by_ratio)
    cells = [cell for cell in ("full", "clean") if summary[cell]]
    cells += [f"{method}_{lowest}" for method, by_ratio in pruned.items() if lowest in by_ratio]
    curves = {cell: [_metrics(results / f"models/seed{seed}/{cell}/metrics.jsonl") for seed in seeds] for cell in cells}
    if summary["meta"]:
        curves["meta"] = [_metrics(results / f"meta/seed{seed}/metrics.jsonl") for seed in seeds]
    return curves


def _metrics(path: Path) -> Metrics:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SamaError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict) or "step" not in row:
            raise SamaError(f"{path}, line {number}: expected an object with a key 'step'")
        rows.append(row)
    if not rows:
        raise SamaError(f"{path}: expected at least one line, got none")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
