"""Gather the evaluations of all seeds into the machine-readable outcome of the experiment."""

from pathlib import Path
from typing import Any

import pandas as pd

from sama.config import ScoresConfig, SelectionConfig
from sama.errors import SamaError
from sama.files import read_json, write_json, write_text


def run(
    *,
    evaluations: Path,
    out: Path,
    plots: Path,
    experiment: str,
    seeds: tuple[int, ...],
    scores: ScoresConfig,
    selection: SelectionConfig,
) -> None:
    """Write summary.json (one list entry a seed) and the table behind the accuracy plot.

    Args:
        evaluations: folder of the files of `sama evaluate`, one a seed.
        out: JSON file of the outcome.
        plots: CSV file of method, pruning_ratio, seed, accuracy.
        experiment: its name.
        seeds: in the order of the lists.
        scores: the methods.
        selection: the pruning ratios.

    Raises:
        SamaError: an evaluation is missing or lacks a cell.
    """
    files = [evaluations / f"seed{seed}.json" for seed in seeds]
    found = [read_json(path) for path in files]

    def over_seeds(*keys: str) -> list[float]:
        return [value_of(content, path, keys) for content, path in zip(found, files, strict=True)]

    ratios = [str(ratio) for ratio in selection.pruning_ratios]
    known = all("clean" in content["accuracy"] for content in found)
    detected = [m for m in scores.methods if all(m in content["noise_detection"] for content in found)]
    summary: dict[str, Any] = {
        "experiment": experiment,
        "seeds": list(seeds),
        "full": {"accuracy": over_seeds("accuracy", "full")},
        "clean": {"accuracy": over_seeds("accuracy", "clean")} if known else {},
        "meta": {"accuracy": over_seeds("accuracy", "meta")},
        "pruned": {
            method: {ratio: {"accuracy": over_seeds("accuracy", "pruned", method, ratio)} for ratio in ratios}
            for method in scores.methods
        },
        "noise_detection": {
            method: {name: over_seeds("noise_detection", method, name) for name in ("auc", "average_precision")}
            for method in detected
        },
        "search_cost": {method: over_seeds("search_cost", method) for method in scores.methods},
    }
    rows = [
        (method, ratio, seed, value)
        for method in scores.methods
        for ratio in ratios
        for seed, value in zip(seeds, summary["pruned"][method][ratio]["accuracy"], strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["method", "pruning_ratio", "seed", "accuracy"])
    write_text(plots, frame.to_csv(index=False, lineterminator="\n"))
    write_json(out, summary)


def value_of(content: Any, path: Path, keys: tuple[str, ...]) -> float:
    """What stands under `keys` in the content of a JSON file, or a `SamaError` that names the file and the entry."""
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise SamaError(f"{path}: expected an entry {'.'.join(keys)}")
        content = content[key]
    return content
