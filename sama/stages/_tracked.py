"""What the mirrors of the workloads share: result files as runs of the MLflow database.

What stands there: one run for the experiment (figures, configuration, data set), below it in the list one run for each
cell with mean and standard deviation over the seeds, and below each cell one run a seed with its parameters, learning
curves, final metrics and data set. Only files that the configuration asks for are read, so a leftover of a dropped
method never shows up.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sama import tracking
from sama.config import Config, TextsConfig, flatten
from sama.errors import SamaError
from sama.files import read_json, sha256, write_json

Curve = list[tuple[int, dict[str, float]]]
AnyConfig = Config | TextsConfig


@dataclass(frozen=True)
class Cell:
    """One trained thing: its folder for each seed, what it was configured with, and its final metrics by seed."""

    name: str
    folder: str
    params: Mapping[str, Any]
    finals: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Source:
    """What dataset.json says of the examples."""

    name: str
    content_hash: str
    examples: int


def mirror(database: Path, artifacts: Path, out: Path, config: AnyConfig, runs: Sequence[tracking.Run]) -> None:
    """Make MLflow hold these runs of the experiment, and list their keys in the JSON file `out`.

    The server that MLFLOW_TRACKING_URI names over HTTP, if it names one; else the database.
    """
    store = tracking.server() or tracking.Database(database, artifacts)
    done = tracking.mirror(store, config.experiment, runs)
    write_json(out, {"experiment": config.experiment, "runs": {item.name: item.key for item in runs}})
    print(
        f"{config.experiment}: {done.kept} runs kept, {done.written} written, {done.deleted} deleted in {store.where}"
    )


def describe(
    results: Path, config: AnyConfig, source: Source, cells: Sequence[Cell], headline: str
) -> list[tracking.Run]:
    """Every run of the experiment, in the order of the dashboard, each parent before its children.

    `headline` is the metric on test, `test/{headline}` of the cells, that the run of the experiment shows.
    """
    groups: list[tracking.Run] = []
    for cell in cells:
        children = [_child(results, config, source, cell, position) for position in range(len(config.seeds))]
        parent = _parent(config, cell, children)
        groups.append(parent)
        groups.extend(replace(child, parent=parent.key) for child in children)
    return [_overview(results, config, source, groups, headline), *groups]


def finals(config: AnyConfig, entry: Mapping[str, Any], *more: Mapping[str, Any]) -> list[dict[str, float]]:
    """Lists over seeds, metric -> values, turned into one mapping a seed. A null says: not defined here."""
    merged = {f"test/{name}": values for name, values in entry.items()}
    for item in more:
        merged.update(item)
    for name, values in merged.items():
        if len(values) != len(config.seeds):
            raise SamaError(f"summary.json: expected {len(config.seeds)} values of {name}, got {len(values)}")
    return [
        {name: values[position] for name, values in merged.items() if values[position] is not None}
        for position in range(len(config.seeds))
    ]


def params(config: AnyConfig, sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of the configuration that a cell depends on, flat."""
    flat: dict[str, Any] = {"threads": config.runtime.threads}
    for name, section in sections.items():
        flat.update(flatten(section.model_dump(mode="json"), f"{name}."))
    return flat


def read_curve(path: Path) -> Curve:
    """The lines of a metrics.jsonl as (step, metrics)."""
    curve: Curve = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    for number, line in enumerate(lines, 1):
        try:
            point = json.loads(line)
            step = point.pop("step")
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise SamaError(f"{path}:{number}: expected an object with a step, got {line[:80]!r}") from error
        curve.append((step, _numbers(point)))
    return curve


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _child(results: Path, config: AnyConfig, source: Source, cell: Cell, position: int) -> tracking.Run:
    seed = config.seeds[position]
    folder = results / cell.folder.format(seed)
    facts = read_json(folder / "summary.json")
    if "content_hash" not in facts:
        raise SamaError(f"{folder / 'summary.json'}: expected a key content_hash, got {', '.join(sorted(facts))}")
    curve = read_curve(folder / "metrics.jsonl")
    cost = {f"cost.{name}": value for name, value in facts.get("cost", {}).items()}
    seen = {name for _, values in curve for name in values}
    rest = {name: value for name, value in facts.get("metrics", {}).items() if name not in seen}
    final = _numbers({**rest, **cell.finals[position]})
    manifest = read_json(results / "data" / f"seed{seed}" / "manifest.json")
    return tracking.Run(
        key=tracking.run_key(config.experiment, cell.name, seed, facts["content_hash"]),
        name=f"{cell.name} seed {seed}",
        tags={"sama.cell": cell.name, "sama.seed": str(seed), "sama.level": "seed"},
        params={"seed": seed, **cost, **cell.params},
        metrics=[*curve, (curve[-1][0] if curve else 0, final)],
        data_set=tracking.DataSet(
            name=source.name,
            digest=manifest["content_hash"],
            source=f"results/{config.experiment}/data/seed{seed}/manifest.parquet",
            facts={"examples": source.examples, "seed": seed},
        ),
    )


def _parent(config: AnyConfig, cell: Cell, children: Sequence[tracking.Run]) -> tracking.Run:
    return tracking.Run(
        key=tracking.run_key(config.experiment, cell.name, None, sha256(*(child.key for child in children))),
        name=cell.name,
        tags={"sama.cell": cell.name, "sama.level": "cell"},
        params={"seeds": list(config.seeds), **cell.params},
        metrics=over_seeds([child.metrics for child in children]),
    )


def over_seeds(curves: Sequence[Sequence[tuple[int, Mapping[str, float]]]]) -> Curve:
    """Mean and sample standard deviation of each metric at each step that all curves have; one seed: the mean alone."""
    points: list[dict[tuple[int, str], float]] = [
        {(step, name): value for step, values in curve for name, value in values.items()} for curve in curves
    ]
    combined: dict[int, dict[str, float]] = {}
    for step, name in points[0]:
        if all((step, name) in other for other in points):
            values = [other[step, name] for other in points]
            at_step = combined.setdefault(step, {})
            at_step[f"{name}_mean"] = fmean(values)
            if len(values) > 1:
                at_step[f"{name}_sd"] = stdev(values)
    return sorted(combined.items())


def _overview(
    results: Path, config: AnyConfig, source: Source, runs: Sequence[tracking.Run], headline: str
) -> tracking.Run:
    """The run of the experiment itself: how each cell did, the figures, the configuration, the data."""
    figures = sorted((results / "report" / "figures").glob("*.svg"))
    files = {"config.yaml": results / "config.yaml", "summary.json": results / "summary.json"}
    files.update({f"figures/{path.name}": path for path in figures})
    headlines = {
        f"{headline}/{run.name}": values[f"test/{headline}_mean"]
        for run in runs
        if run.parent is None
        for _, values in run.metrics
        if f"test/{headline}_mean" in values
    }
    return tracking.Run(
        key=tracking.run_key(config.experiment, "experiment", None, sha256(*(run.key for run in runs))),
        name=config.experiment,
        tags={"sama.cell": "experiment", "sama.level": "experiment"},
        params=flatten(config.model_dump(mode="json", exclude={"launcher", "data_root"})),
        metrics=[(0, headlines)],
        data_set=tracking.DataSet(
            name=source.name,
            digest=source.content_hash,
            source=f"results/{config.experiment}/data",
            facts={"examples": source.examples},
        ),
        artifacts=files,
    )
