"""Gather the evaluations of all seeds into the machine-readable outcome of an experiment on texts."""

from pathlib import Path
from typing import Any

import pandas as pd

from sama.config import FinetuningConfig, TextDataConfig
from sama.files import read_json, write_json, write_text
from sama.stages.summarize import value_of


def run(
    *,
    evaluations: Path,
    out: Path,
    plots: Path,
    experiment: str,
    seeds: tuple[int, ...],
    data: TextDataConfig,
    finetuning: FinetuningConfig,
) -> None:
    """Write summary.json (lists have one entry a seed) and the table behind the plot.

    Args:
        evaluations: folder of the files of `sama evaluate-texts`, one a seed.
        out: JSON file of the outcome.
        plots: CSV file of method, seed, and the measure on test.
        experiment: its name.
        seeds: in the order of the lists.
        data: the measure.
        finetuning: the methods.

    Raises:
        SamaError: an evaluation is missing or lacks a method.
    """
    files = [evaluations / f"seed{seed}.json" for seed in seeds]
    found = [read_json(path) for path in files]

    def over_seeds(*keys: str) -> list[Any]:
        return [value_of(content, path, keys) for content, path in zip(found, files, strict=True)]

    def labels_of(split: str) -> str:
        return "clean" if set(over_seeds("measured_against", split)) == {"clean"} else "weak"

    def where_known(kind: str) -> dict[str, dict[str, list[float]]]:
        known = [method for method in finetuning.methods if all(method in content[kind] for content in found)]
        return {method: {name: over_seeds(kind, method, name) for name in found[0][kind][method]} for method in known}

    names = dict.fromkeys([data.measure, "accuracy"])
    summary = {
        "experiment": experiment,
        "measure": data.measure,
        "seeds": list(seeds),
        "measured_against": {split: labels_of(split) for split in ("validation", "test")},
        "test": {method: {name: over_seeds("test", method, name) for name in names} for method in finetuning.methods},
        "validation": {method: over_seeds("validation", method) for method in finetuning.methods},
        "cost": {method: over_seeds("cost", method) for method in finetuning.methods},
        "noise_detection": where_known("noise_detection"),
        "correction": where_known("correction"),
    }
    write_json(out, summary)
    rows = [
        {"method": method, "seed": seed, data.measure: value}
        for method in finetuning.methods
        for seed, value in zip(seeds, summary["test"][method][data.measure], strict=True)
    ]
    write_text(plots, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
