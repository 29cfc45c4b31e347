"""A small results folder of an experiment on texts, for tests of its report and its mirror.

Data and summary are those of the real stages; what is trained in between is made up (seeded), with relations that hold
from file to file: low weights go to wrong labels, corrections are right where `corrected` says so.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from sama.config import WEIGHTING, TextsConfig, dump_yaml, validate_any
from sama.data.text_manifest import load
from sama.files import write_csv, write_json, write_parquet, write_text
from sama.stages import prepare_texts, summarize_texts

NASTY = "<script>alert('x')</script> & a subject of cash"
LONG = "long " * 60 + "end"
METHODS = ("majority_vote", "dawid_skene", "clean_only", "weak_then_clean", "meta_r", "meta_rc")
LEVELS = {
    "majority_vote": 0.70,
    "dawid_skene": 0.72,
    "clean_only": 0.81,
    "weak_then_clean": 0.84,
    "meta_r": 0.90,
    "meta_r_na": 0.86,
    "meta_rc": 0.88,
}
COST = {"meta_r": 3.5, "meta_r_na": 3.0, "meta_rc": 4.0}
STEPS = (20, 40, 60)
RATES = (0.001, 0.002)


def build(
    root: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = METHODS,
    levels: Mapping[str, float] | None = None,
    clean_known: bool = True,
    tuned: bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Write `root/results/planted_texts` and return it; `levels` replace those of the measure on test."""
    level = {**LEVELS, **(levels or {})}
    texts = root / "mails.jsonl"
    write_text(texts, "".join(json.dumps(row) + "\n" for row in _rows(clean_known)))
    grid = [{"training": {"optimizer": {"learning_rate": rate}}} for rate in RATES]
    config = validate_any(
        {
            "workload": "texts",
            "experiment": "planted_texts",
            "seeds": list(seeds),
            "data": data(root, label_column="label" if clean_known else None),
            "model": {"name": "planted/bert"},
            "finetuning": {"methods": list(methods)},
            "tuning": {"grids": {"default": grid} if tuned else {}},
            **(overrides or {}),
        }
    )
    assert isinstance(config, TextsConfig)
    results = root / "results" / config.experiment
    write_text(results / "config.yaml", dump_yaml(config))
    small = config.model.model_copy(update={"name": None})  # the named one is planted: nothing is fetched
    prepare_texts.run(out=results / "data", seeds=config.seeds, data=config.data, model=small)
    for method in methods:
        _tune(results, method, grid if tuned else [{}])
    for seed in config.seeds:
        _seed(results, seed, config, level)
    summarize_texts.run(
        evaluations=results / "evaluation",
        out=results / "summary.json",
        plots=results / "plots/measures.csv",
        experiment=config.experiment,
        seeds=config.seeds,
        data=config.data,
        finetuning=config.finetuning,
    )
    _suspects(results, config)
    return results


def data(root: Path, **changes: Any) -> dict[str, Any]:
    """The section of the configuration, with `changes`."""
    return {
        "source": "json_lines",
        "path": str(root / "mails.jsonl"),
        "vote_columns": ["cash", "subject", "length"],
        "meta_set": "held_out",
        "splits": {"meta": 16, "validation": 16, "test": 20},
        **changes,
    }


def _rows(clean_known: bool) -> list[dict[str, Any]]:
    draw = np.random.default_rng(5)
    rows = []
    for number in range(120):
        spam = int(draw.random() < 0.5)
        text = {0: NASTY, 1: LONG}.get(number, f"mail {number} about {'cash' if spam else 'trains'}")
        votes = {}
        for name, coverage, accuracy in (("cash", 0.8, 0.9), ("subject", 0.7, 0.6), ("length", 0.5, 0.55)):
            vote = spam if draw.random() < accuracy else 1 - spam
            votes[name] = ["ham", "spam"][vote] if draw.random() < coverage else None
        label = {"label": ["ham", "spam"][spam]} if clean_known else {}
        rows.append({"text": text, **label, **votes})
    return rows


def _tune(results: Path, method: str, grid: Sequence[Mapping[str, Any]]) -> None:
    candidates = [
        {"overlay": overlay, "validation": [0.6 + place / 10] if len(grid) > 1 else []}
        for place, overlay in enumerate(grid)
    ]
    found = {"method": method, "seeds": [100], "measure": "accuracy", "candidates": candidates}
    write_json(results / f"tuning/{method}.json", {**found, "chosen": len(grid) - 1})


def _seed(results: Path, seed: int, config: TextsConfig, level: Mapping[str, float]) -> None:
    draw = np.random.default_rng(seed)
    train = load(results / "data/texts.parquet", results / f"data/seed{seed}/manifest.parquet").split("train")
    wrong = train.label != train.clean_label
    evaluated: dict[str, Any] = {"seed": seed, "test": {}, "validation": {}, "cost": {}}
    measured = dict.fromkeys(("validation", "test"), "clean")
    evaluated |= {"noise_detection": {}, "correction": {}, "measured_against": measured}
    for method in config.finetuning.methods:
        value = level[method] + 0.01 * draw.standard_normal()
        folder = results / f"models/seed{seed}/{method}"
        lines = [
            {"step": step, "train/loss": 20 / step, f"validation/{config.data.measure}": value * step / (step + 5)}
            for step in STEPS
        ]
        write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        write_json(
            folder / "summary.json",
            {
                "stage": "finetune",
                "seed": seed,
                "cell": method,
                "steps": STEPS[-1],
                "cost": {"forward_examples": 960, "backward_examples": 960},
                "metrics": {f"validation/{config.data.measure}": value - 0.02},
                "content_hash": f"{method}-{seed}",
            },
        )
        evaluated["test"][method] = {config.data.measure: value, "accuracy": value}
        evaluated["validation"][method] = value - 0.02
        evaluated["cost"][method] = COST.get(method, 1.0)
        if method not in WEIGHTING:
            continue
        weight = 1.0 - 0.6 * wrong + 0.2 * draw.random(len(wrong))
        table = pd.DataFrame({"sample_id": train.sample_id, "weight": weight})
        spam = np.zeros(len(wrong))
        if method == "meta_rc":
            spam = np.clip(np.where(wrong, 1 - train.label, train.label) + 0.3 * draw.random(len(wrong)) - 0.15, 0, 1)
            table = table.assign(corrected_0=1 - spam, corrected_1=spam)
        write_parquet(folder / "weights.parquet", table)
        if (train.clean_label >= 0).all():
            evaluated["noise_detection"][method] = {
                "auc": float(roc_auc_score(wrong, -weight)),
                "average_precision": float(average_precision_score(wrong, -weight)),
            }
            if method == "meta_rc":
                right = (spam > 0.5) == (train.clean_label == 1)
                evaluated["correction"][method] = {
                    "weak_accuracy": float(1 - wrong.mean()),
                    "corrected_accuracy": float(right.mean()),
                }
    write_json(results / f"evaluation/seed{seed}.json", evaluated)


def _suspects(results: Path, config: TextsConfig) -> None:
    """Every third training text of the first seed contradicted; the first of them is NASTY, the second LONG."""
    train = load(results / "data/texts.parquet", results / f"data/seed{config.seeds[0]}/manifest.parquet").split(
        "train"
    )
    method = next((name for name in config.finetuning.methods if name in WEIGHTING), None)
    names = np.array(["ham", "spam"])
    count = len(train) if method else 0
    rows = pd.DataFrame({"sample_id": train.sample_id, "text": train.text, "label": names[train.label]}).head(count)
    rows.loc[rows.index[:2], "text"] = [NASTY, LONG][: min(count, 2)]
    rows = rows.assign(weight=np.linspace(0.1, 1.9, count), seeds=len(config.seeds))
    write_csv(results / "suspects/weights.csv", rows)
    found = pd.concat([rows[:2], rows[2::3]]) if count else rows
    found = found.assign(
        observed=found["label"],
        suggested=np.where(found["label"] == "ham", "spam", "ham"),
        suspicion=np.linspace(0.95, 0.05, len(found)),
    )
    columns = ["sample_id", "text", "observed", "suggested", "suspicion", "weight"]
    write_csv(results / "suspects/suspect_labels.csv", pd.DataFrame(found, columns=columns))
    checked = None
    if config.data.label_column and count:
        checked = [{"first": len(found), "wrong": 12, "suggested_right": 9}]
    summary = {"method": method, "texts": count, "suspects": len(found), "checked": checked, "seeds": [0]}
    write_json(results / "suspects/summary.json", summary)
