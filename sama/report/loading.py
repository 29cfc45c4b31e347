"""A results folder as the report needs it: read, checked, nothing computed that a stage has already written.

Only what `summary.json` announces is read: its seeds, its methods, its ratios. A file that should be there and is not
stops the report with its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sama.data import manifest
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import read_json
from sama.report import reading
from sama.report.agreement import Agreement, rank_correlation, shared_fraction
from sama.report.reading import Metrics, Suspects, Training, Weights, columns, mislabelled

MEMBERS = ("full", "clean", "meta", "pruned", "noise_detection", "search_cost")
LOSS_ONLY = "meta_weight_loss"


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
        loss_only: seed -> those of the network that sees the loss alone; empty if it was not trained.
        retraining: cell ("full", "clean", "METHOD_RATIO") -> what its training took, one entry a seed.
        agreement: rank correlations and shares of the kept lists, of all methods.
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
    loss_only: dict[int, Weights]
    retraining: dict[str, list[Training]]
    agreement: Agreement
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
        return _ratios(self.pruned)

    def at(self, ratio: float) -> dict[str, list[float]]:
        """Method -> accuracy, one value a seed, for the methods that were pruned at `ratio`."""
        return {method: by_ratio[ratio] for method, by_ratio in self.pruned.items() if ratio in by_ratio}

    def noise(self, split: str) -> list[float]:
        """Fraction of mislabelled examples in `split`, one value a seed; clean labels must be known."""
        return [float(wrong.mean()) for data in self.data.values() if (wrong := mislabelled(data, split)) is not None]


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
    weights = _weights(results / "meta", "weights.parquet", data) if summary["meta"] else {}
    loss_only = _weights(results / "meta", "loss_only/weights.parquet", data) if LOSS_ONLY in pruned else {}
    of_seeds = [_seed(results, seed, examples, pruned, detection) for seed, examples in data.items()]
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
        weights=weights,
        loss_only={seed: own.beside(weights[seed]) if seed in weights else own for seed, own in loss_only.items()},
        retraining=_retraining(results, seeds, summary, pruned),
        curves=_curves(results, seeds, summary, pruned),
        suspects=reading.suspects(results / "suspects") if summary["meta"] else None,
        suspicion={method: [seed.suspicion[method] for seed in of_seeds] for method in detection},
        kept_noise={
            method: {ratio: [seed.kept_noise[method, ratio] for seed in of_seeds] for ratio in by_ratio}
            for method, by_ratio in pruned.items()
        }
        if detection
        else {},
        agreement=_agreement(pruned, of_seeds),
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
        reading.check_lists(path, key, summary[key], len(summary["seeds"]))
    return summary


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


def _weights(folder: Path, name: str, data: Mapping[int, Dataset]) -> dict[int, Weights]:
    return {
        seed: reading.weights(
            folder / f"seed{seed}" / name, examples.split("train"), mislabelled(examples, "train"), examples.path
        )
        for seed, examples in data.items()
    }


@dataclass(frozen=True)
class _Seed:
    """What is made of the scores and kept lists of one seed, so that they need not be held for all."""

    suspicion: dict[str, tuple[NDArray[np.bool_], NDArray[np.float64]]]
    correlation: NDArray[np.float64]
    shared: dict[float, NDArray[np.float64]]
    kept_fraction: dict[float, float]
    kept_noise: dict[tuple[str, float], float]


def _seed(results: Path, seed: int, data: Dataset, pruned: Mapping[str, Any], detection: Mapping[str, Any]) -> _Seed:
    train, wrong = data.split("train"), _known_wrong(results, data) if detection else None
    paths = {method: results / f"scores/seed{seed}/{method}.parquet" for method in pruned}
    scores = {method: columns(path, ["score"], train, data.path)[0] for method, path in paths.items()}
    shared, kept_fraction, kept_noise = {}, {}, {}
    for ratio in _ratios(pruned):
        kept = {
            method: reading.kept(results / f"kept/seed{seed}/{method}_{ratio}.parquet", train, data.path)
            for method, by_ratio in pruned.items()
            if ratio in by_ratio
        }
        shared[ratio] = shared_fraction(kept, list(pruned))
        kept_fraction[ratio] = float(np.mean([mask.mean() for mask in kept.values()]))
        if wrong is not None:
            kept_noise |= {(method, ratio): float(wrong[mask].mean()) for method, mask in kept.items()}
    suspicion = {method: (wrong, -scores[method]) for method in detection} if wrong is not None else {}
    return _Seed(suspicion, rank_correlation(list(scores.values())), shared, kept_fraction, kept_noise)


def _agreement(methods: Iterable[str], seeds: Sequence[_Seed]) -> Agreement:
    ratios = list(seeds[0].shared)
    return Agreement(
        methods=tuple(methods),
        correlation=np.stack([seed.correlation for seed in seeds]),
        shared={ratio: np.stack([seed.shared[ratio] for seed in seeds]) for ratio in ratios},
        kept_fraction={ratio: float(np.mean([seed.kept_fraction[ratio] for seed in seeds])) for ratio in ratios},
    )


def _ratios(pruned: Mapping[str, Mapping[float, Any]]) -> list[float]:
    return sorted({ratio for by_ratio in pruned.values() for ratio in by_ratio})


def _known_wrong(results: Path, data: Dataset) -> NDArray[np.bool_]:
    wrong = mislabelled(data, "train")
    if wrong is None:
        raise SamaError(f"{data.path}: no column 'clean_label', but {results / 'summary.json'} has noise_detection")
    return wrong


def _retraining(
    results: Path, seeds: Sequence[int], summary: Mapping[str, Any], pruned: Mapping[str, Mapping[float, Any]]
) -> dict[str, list[Training]]:
    cells = [cell for cell in ("full", "clean") if summary[cell]]
    cells += [f"{method}_{ratio}" for method, by_ratio in pruned.items() for ratio in by_ratio]
    return {
        cell: [reading.training(results / f"models/seed{seed}/{cell}/summary.json") for seed in seeds] for cell in cells
    }


def _curves(
    results: Path, seeds: Sequence[int], summary: Mapping[str, Any], pruned: Mapping[str, Mapping[float, Any]]
) -> dict[str, list[Metrics]]:
    lowest = min(ratio for by_ratio in pruned.values() for ratio in by_ratio)
    cells = [cell for cell in ("full", "clean") if summary[cell]]
    cells += [f"{method}_{lowest}" for method, by_ratio in pruned.items() if lowest in by_ratio]
    curves = {
        cell: [reading.metrics(results / f"models/seed{seed}/{cell}/metrics.jsonl") for seed in seeds] for cell in cells
    }
    if summary["meta"]:
        curves["meta"] = [reading.metrics(results / f"meta/seed{seed}/metrics.jsonl") for seed in seeds]
    return curves
