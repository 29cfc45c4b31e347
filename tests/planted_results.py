"""A small results folder, planted with relations that hold from file to file, for tests of the report.

The numbers are made up (seeded), the relations between the files are real: kept lists follow from scores, noise
detection from scores and manifests, summary.json from the cells.
"""
# pandas types columns loosely:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from sama.config import Config, dump_yaml, validate
from sama.files import read_json, sha256, write_json, write_parquet, write_text

ACCURACY = {"full": 0.8, "clean": 0.985, "meta": 0.95, "meta_weight": 0.97, "random": 0.78, "el2n": 0.7, "margin": 0.93}
DETECTION = {"meta_weight": 4.0, "random": 0.0, "el2n": -2.0, "margin": 3.0}  # separation of clean from mislabelled
COST = {"meta_weight": 2.7, "random": 0.0, "el2n": 0.8, "margin": 1.0}
STEPS = (25, 50, 75, 100)


def build(
    root: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = ("meta_weight", "random", "el2n", "margin"),
    ratios: Sequence[float] = (0.3, 0.5, 0.7),
    classes: int = 10,
    channels: int = 1,
    size: int = 8,
    train: int = 150,
    clean_known: bool = True,
    noise: float = 0.3,
    spread: float = 0.01,
    accuracy: Mapping[str, float] | None = None,
    detection: Mapping[str, float] | None = None,
    class_names: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    same_epochs: bool = False,
) -> Config:
    """Write `root/{experiment}` and return its configuration; `accuracy` and `detection` replace the levels above."""
    values: dict[str, Any] = {
        "experiment": "planted",
        "seeds": list(seeds),
        "data": {"noise": {"kind": "symmetric", "rate": noise} if clean_known and noise else {"kind": "none"}},
        "scores": {"methods": list(methods)},
        "selection": {"pruning_ratios": list(ratios)},
        **(overrides or {}),
    }
    config = validate(values)
    results = root / config.experiment
    sizes = {"train": train, "meta": 30, "validation": 40, "test": 60}
    rng = np.random.default_rng(7)
    _images(results, rng, sum(sizes.values()), classes, channels, size, class_names)
    level = {**ACCURACY, **(accuracy or {})}
    separation = {**DETECTION, **(detection or {})}

    with_meta = "meta_weight" in methods
    summary: dict[str, Any] = {
        "experiment": config.experiment,
        "seeds": list(seeds),
        "full": {"accuracy": []},
        "clean": {"accuracy": []} if clean_known else {},
        "meta": {"accuracy": []} if with_meta else {},
        "pruned": {method: {str(ratio): {"accuracy": []} for ratio in ratios} for method in methods},
        "noise_detection": {m: {"auc": [], "average_precision": []} for m in methods} if clean_known and noise else {},
        "search_cost": {method: [] for method in methods},
    }
    for seed in seeds:
        rng = np.random.default_rng(seed)
        manifest = _manifest(results, rng, seed, sizes, classes, clean_known, noise, class_names)
        train_rows = pd.DataFrame(manifest[manifest["split"] == "train"]).reset_index(drop=True)
        wrong = (
            (train_rows["label"] != train_rows["clean_label"]).to_numpy() if clean_known else rng.random(train) < noise
        )
        scores = {m: _score(rng, wrong, separation.get(m, 0.0)) for m in methods}
        if with_meta:
            scores["meta_weight"] = _meta(results, rng, seed, train_rows, wrong, scores["meta_weight"])
        if "meta_weight_loss" in methods:
            write_parquet(
                results / f"meta/seed{seed}/loss_only/weights.parquet",
                pd.DataFrame(
                    {
                        "sample_id": train_rows["sample_id"],
                        "weight": np.exp(scores["meta_weight_loss"]),
                        "loss": 3.0 * wrong + 0.1,
                    }
                ),
            )
        cells = {"full": level["full"], **({"clean": level["clean"]} if clean_known else {})}
        for method in methods:
            _write_scores(results, seed, method, train_rows["sample_id"].to_numpy(), scores[method])
            summary["search_cost"][method].append(COST.get(method, 1.0))
            if summary["noise_detection"]:
                found = summary["noise_detection"][method]
                found["auc"].append(float(roc_auc_score(wrong, -scores[method])))
                found["average_precision"].append(float(average_precision_score(wrong, -scores[method])))
            for index, ratio in enumerate(ratios):
                kept = np.argsort(-scores[method], kind="stable")[: round(train * (1 - ratio))]
                write_parquet(
                    results / f"kept/seed{seed}/{method}_{ratio}.parquet",
                    pd.DataFrame({"sample_id": train_rows["sample_id"].to_numpy()[np.sort(kept)]}),
                )
                cells[f"{method}_{ratio}"] = level.get(method, 0.8) - 0.02 * index
        evaluated = {}
        for cell, mean in cells.items():
            value = float(np.clip(mean + spread * rng.standard_normal(), 0.0, 1.0))
            evaluated[cell] = value
            share = 1 - float(cell.rsplit("_", 1)[1]) if "_" in cell else 1.0
            steps = round(share * STEPS[-1]) if same_epochs else STEPS[-1]
            _model(results, rng, seed, cell, value, round(share * train), steps)
        for name in ("full", "clean"):
            if name in evaluated:
                summary[name]["accuracy"].append(evaluated[name])
        for method in methods:
            for ratio in ratios:
                summary["pruned"][method][str(ratio)]["accuracy"].append(evaluated[f"{method}_{ratio}"])
        if with_meta:
            summary["meta"]["accuracy"].append(float(level["meta"] + spread * rng.standard_normal()))
        write_json(results / f"evaluation/seed{seed}.json", {"seed": seed, "accuracy": evaluated})
    if with_meta:
        _suspects(results, seeds, ratios, np.random.default_rng(11))
    write_json(results / "summary.json", summary)
    write_text(results / "config.yaml", dump_yaml(config))
    return config


def edit_summary(results: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `summary.json` in place."""
    summary = read_json(results / "summary.json")
    change(summary)
    write_json(results / "summary.json", summary)


def _images(
    results: Path,
    rng: np.random.Generator,
    count: int,
    classes: int,
    channels: int,
    size: int,
    class_names: Sequence[str] | None,
) -> None:
    (results / "data").mkdir(parents=True)
    images = rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
    np.save(results / "data/images.npy", images)
    write_json(
        results / "data/dataset.json",
        {
            "source": "digits",
            "class_names": list(class_names or map(str, range(classes))),
            "image_shape": [channels, size, size],
            "examples": count,
            "content_hash": sha256(images.tobytes()),
        },
    )


def _manifest(
    results: Path,
    rng: np.random.Generator,
    seed: int,
    sizes: Mapping[str, int],
    classes: int,
    clean_known: bool,
    noise: float,
    class_names: Sequence[str] | None,
) -> pd.DataFrame:
    count = sum(sizes.values())
    split = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    clean = rng.integers(0, classes, count)
    label = clean.copy()
    for name in ("train", "validation"):
        rows = np.flatnonzero(split == name)
        flipped = rng.permutation(rows)[: round(noise * len(rows))] if clean_known else rows[:0]
        label[flipped] = (label[flipped] + rng.integers(1, classes, len(flipped))) % classes
    manifest = pd.DataFrame(
        {
            "sample_id": [f"digits/{row:05d}" for row in range(count)],
            "split": split,
            "label": label.astype(np.int64),
            "clean_label": clean.astype(np.int64),
            "source": "digits",
            "row": np.arange(count, dtype=np.int64),
        }
    )
    if not clean_known:
        manifest = manifest.drop(columns="clean_label")
    write_parquet(results / f"data/seed{seed}/manifest.parquet", manifest)
    write_json(
        results / f"data/seed{seed}/manifest.json",
        {
            "seed": seed,
            "counts": dict(sizes),
            "overlap": {
                f"{first}/{second}": {"shared": 0, first: 0, second: 0, "examples": []}
                for first, second in combinations(sizes, 2)
            },
            "class_names": list(map(str, range(classes))) if class_names is None else list(class_names),
            "channel_mean": [0.5],
            "channel_std": [0.25],
            "meta_set": "clean_held_out",
            "content_hash": sha256(str(seed)),
        },
    )
    return manifest


def _score(rng: np.random.Generator, wrong: np.ndarray, separation: float) -> np.ndarray:
    return rng.standard_normal(len(wrong)) + separation * ~wrong


def _meta(
    results: Path, rng: np.random.Generator, seed: int, rows: pd.DataFrame, wrong: np.ndarray, score: np.ndarray
) -> np.ndarray:
    weight = 2.0 / (1.0 + np.exp(-score))
    loss = rng.gamma(2.0, 0.1, len(wrong)) + 3.0 * wrong
    write_parquet(
        results / f"meta/seed{seed}/weights.parquet",
        pd.DataFrame(
            {
                "sample_id": rows["sample_id"],
                "weight": weight,
                "loss": loss,
                "uncertainty": rng.gamma(2.0, 0.2, len(wrong)),
            }
        ),
    )
    lines = [
        {
            "step": step,
            "train/loss": 2.3 * 50 / (50 + step) + 0.05 * float(rng.random()),
            "meta/loss": 2.0 * 40 / (40 + step) + 0.05 * float(rng.random()),
            "validation/accuracy": 0.68 * step / (step + 10),
        }
        for step in STEPS
    ]
    write_text(results / f"meta/seed{seed}/metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_json(results / f"meta/seed{seed}/summary.json", {"stage": "meta_train", "seed": seed, "steps": STEPS[-1]})
    return weight


def _write_scores(results: Path, seed: int, method: str, ids: np.ndarray, score: np.ndarray) -> None:
    write_parquet(
        results / f"scores/seed{seed}/{method}.parquet",
        pd.DataFrame({"sample_id": ids, "score": score.astype(np.float64)}),
    )
    cost = {"forward_examples": 1000, "backward_examples": 1000}
    write_json(
        results / f"scores/seed{seed}/{method}.json",
        {"method": method, "seed": seed, "cost": cost},
    )


def _suspects(results: Path, seeds: Any, ratios: Any, rng: np.random.Generator) -> None:
    """Every fourth training example of the first seed contradicted; summary and kept counts to match."""
    names = read_json(results / "data/dataset.json")["class_names"]
    manifest = pd.read_parquet(results / f"data/seed{seeds[0]}/manifest.parquet")
    train = manifest[manifest["split"] == "train"].reset_index(drop=True)
    found = train[::4]
    guess = (found["label"].to_numpy() + 1) % len(names)
    table = {
        "sample_id": found["sample_id"],
        "observed": [names[label] for label in found["label"]],
        "suggested": [names[label] for label in guess],
        "suspicion": np.sort(rng.random(len(found)))[::-1],
        "held_out": 0,
        "weight": np.where(np.arange(len(found)) % 5 == 3, np.nan, rng.random(len(found))),
    }
    write_text(results / "suspects/suspect_labels.csv", pd.DataFrame(table).to_csv(index=False))
    checked = None
    if "clean_label" in train:
        clean = found["clean_label"].to_numpy()
        wrong, right = int((found["label"].to_numpy() != clean).sum()), int((guess == clean).sum())
        checked = {
            "wrong_labels": int((train["label"] != train["clean_label"]).sum()),
            "first": [{"suspects": len(found), "wrong": wrong, "suggestion_right": right}],
        }
    summary = {
        "seeds": [seeds[0]],
        "images": len(manifest),
        "weighed": len(train),
        "held_out": 0,
        "kept": {str(ratio): round(len(train) * (1 - ratio)) for ratio in ratios},
        "suspects": len(found),
        "checked": checked,
    }
    write_json(results / "suspects/summary.json", summary)


def _model(
    results: Path, rng: np.random.Generator, seed: int, cell: str, accuracy: float, examples: int, steps: int
) -> None:
    lines = [
        {
            "step": step,
            "train/loss": 2.3 * 50 / (50 + step),
            "validation/accuracy": 0.7 * accuracy * step / (step + 10) + 0.01 * float(rng.random()),
            "learning_rate": 0.1,
        }
        for step in STEPS
    ]
    folder = results / f"models/seed{seed}/{cell}"
    write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    cost = {"forward_examples": steps * 64, "backward_examples": steps * 64}
    facts = {"stage": "retrain", "seed": seed, "cell": cell, "steps": steps, "examples": examples, "cost": cost}
    write_json(folder / "summary.json", facts)
