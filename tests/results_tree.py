"""A small results folder, made up but true to the file contract of docs/architecture.md."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

METHODS = ("meta_weight", "random")
RATIOS = (0.3, 0.5)
SEEDS = (0, 1)
FIGURE = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><circle cx="20" cy="20" r="9"/></svg>\n'


def make(root: Path, experiment: str = "toy", **changes: Any) -> Path:
    """Write `root/results/{experiment}` and return it. `changes` overlay the configuration."""
    config: dict[str, Any] = {
        "experiment": experiment,
        "seeds": list(SEEDS),
        "scores": {"methods": list(METHODS)},
        "selection": {"pruning_ratios": list(RATIOS)},
        "data": {"noise": {"kind": "symmetric", "rate": 0.3}},
        **changes,
    }
    results = root / "results" / experiment
    seeds = config["seeds"]
    methods, ratios = config["scores"]["methods"], config["selection"]["pruning_ratios"]
    write(results / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write(
        results / "data" / "dataset.json",
        {
            "source": "digits",
            "class_names": [str(digit) for digit in range(10)],
            "image_shape": [1, 8, 8],
            "examples": 1797,
            "content_hash": "d" * 64,
        },
    )
    cells = ["full", "clean", *(f"{method}_{ratio}" for method in methods for ratio in ratios)]
    for seed in seeds:
        write(results / "data" / f"seed{seed}" / "manifest.json", {"content_hash": f"{seed:064x}", "counts": {}})
        training(results / "meta" / f"seed{seed}", "meta_train", seed, "meta")
        for cell in cells:
            training(results / "models" / f"seed{seed}" / cell, "retrain", seed, cell)
    summarize(results, experiment, seeds, methods, ratios)
    for name in ("accuracy", "weights"):
        write(results / "report" / "figures" / f"{name}.svg", FIGURE)
    return results


def training(folder: Path, stage: str, seed: int, cell: str) -> None:
    """metrics.jsonl and summary.json of one training."""
    random_ = random.Random(f"{seed} {cell}")
    points = [
        {
            "step": step,
            "train/loss": 2.3 * 0.97**step + random_.random() / 20,
            "validation/accuracy": 1 - 0.9 * 0.97**step,
        }
        for step in range(25, 101, 25)
    ]
    write(folder / "metrics.jsonl", "".join(json.dumps(point) + "\n" for point in points))
    last = {name: value for name, value in points[-1].items() if name != "step"}
    write(
        folder / "summary.json",
        {
            "stage": stage,
            "seed": seed,
            "cell": cell,
            "steps": 100,
            "examples": 900,
            "cost": {"forward_examples": 12800, "backward_examples": 12800},
            "metrics": last,
            "content_hash": f"{cell}-{seed}",
        },
    )


def summarize(results: Path, experiment: str, seeds: Any, methods: Any, ratios: Any) -> None:
    """The summary of the experiment."""
    count = range(len(seeds))
    write(
        results / "summary.json",
        {
            "experiment": experiment,
            "seeds": list(seeds),
            "full": {"accuracy": [0.80 + i / 100 for i in count]},
            "clean": {"accuracy": [0.96 + i / 100 for i in count]},
            "meta": {"accuracy": [0.94 + i / 100 for i in count]},
            "pruned": {
                method: {
                    str(ratio): {"accuracy": [0.9 - ratio / 10 - k / 10 + i / 100 for i in count]} for ratio in ratios
                }
                for k, method in enumerate(methods)
            },
            "noise_detection": {
                method: {"auc": [0.99 - k / 3 for _ in count], "average_precision": [0.98 - k / 3 for _ in count]}
                for k, method in enumerate(methods)
            },
            "search_cost": {method: [1.5 - k for _ in count] for k, method in enumerate(methods)},
        },
    )


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2, sort_keys=True) + "\n")
