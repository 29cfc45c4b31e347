"""Mirror an experiment's results into MLflow: the database here, of which it is the sole writer, or a server.

The cells are meta training, full, clean, each method and ratio; `sama.stages._tracked` says what stands there of each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sama.config import Config
from sama.errors import SamaError
from sama.files import read_json
from sama.stages._tracked import Cell, Source, describe, finals, mirror, params


def run(*, results: Path, database: Path, artifacts: Path, out: Path, config: Config) -> None:
    """Mirror the experiment into the database, or the server that MLFLOW_TRACKING_URI names over HTTP.

    Args:
        results: folder of the experiment.
        database: SQLite file of MLflow; made if needed.
        artifacts: folder of MLflow's files.
        out: JSON file that lists the keys of the runs: what stands in the database.
        config: the whole configuration.

    Raises:
        SamaError: a result file is missing or does not fit the configuration, or the database cannot be used.
    """
    summary, data = read_json(results / "summary.json"), read_json(results / "data" / "dataset.json")
    source = Source(data["source"], data["content_hash"], data["examples"])
    mirror(database, artifacts, out, config, describe(results, config, source, cells(config, summary), "accuracy"))


def cells(config: Config, summary: Mapping[str, Any]) -> list[Cell]:
    """The cells of the experiment: upper bound, baseline, meta training, then methods by ratio."""
    shared = {"data": config.data, "model": config.model}
    training = params(config, {**shared, "training": config.training})
    meta = params(config, {**shared, "meta": config.meta})
    found: list[Cell] = []
    for name, folder, given, more in (
        ("clean", "models/seed{}/clean", training, ()),
        ("full", "models/seed{}/full", training, ()),
        ("meta", "meta/seed{}", meta, _of_method(summary, "meta_weight")),
    ):
        if summary[name]:
            found.append(Cell(name, folder, given, finals(config, summary[name], *more)))
    for method in config.scores.methods:
        for ratio in config.selection.pruning_ratios:
            name = f"{method}_{ratio}"
            try:
                entry = summary["pruned"][method][str(ratio)]
            except KeyError as error:
                raise SamaError(f"summary.json: expected pruned.{method}.{ratio}, got none") from error
            own = {"method": method, "pruning_ratio": ratio, "selection.strategy": config.selection.strategy}
            values = finals(config, entry, *_of_method(summary, method))
            found.append(Cell(name, f"models/seed{{}}/{name}", {**own, **training}, values))
    return found


def _of_method(summary: Mapping[str, Any], method: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What belongs to a score whatever the ratio: noise detection and search cost."""
    detection = summary["noise_detection"].get(method, {})
    cost = summary["search_cost"].get(method)
    named = {f"noise_detection/{name}": values for name, values in detection.items()}
    return named, {} if cost is None else {"search_cost": cost}
