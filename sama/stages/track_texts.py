"""Mirror an experiment on texts into MLflow, as `sama.stages.track` does one on images.

The cells are the methods; `sama.stages._tracked` says what stands there of each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sama.config import WEIGHTING, TextsConfig
from sama.errors import SamaError
from sama.files import read_json
from sama.stages._text_sections import Sections, chosen
from sama.stages._tracked import Cell, Source, describe, finals, mirror, params


def run(*, results: Path, database: Path, artifacts: Path, out: Path, config: TextsConfig) -> None:
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
    source = Source(data["source"], data["content_hash"], sum(data["texts"].values()))
    found = [cell(results, config, summary, method) for method in config.finetuning.methods]
    mirror(database, artifacts, out, config, describe(results, config, source, found, summary["measure"]))


def cell(results: Path, config: TextsConfig, summary: Mapping[str, Any], method: str) -> Cell:
    """A method with the hyperparameters that were chosen for it, and its numbers of each seed."""
    if method not in summary["test"]:
        raise SamaError(f"summary.json: expected test.{method}, got {', '.join(summary['test'])}")
    tuned = Sections(config.data, config.model, config.training, config.meta, config.finetuning).tuned(
        chosen(results / "tuning" / f"{method}.json")
    )
    sections = {"data": tuned.data, "model": tuned.model, "training": tuned.training, "finetuning": tuned.finetuning}
    if method in WEIGHTING:
        sections["meta"] = tuned.meta
    given = params(config, sections)
    del given["finetuning.methods"]
    more = {
        f"kept_weights/validation_{summary['measure']}": summary["validation"][method],
        "relative_cost": summary["cost"][method],
    }
    for kind in ("noise_detection", "correction"):
        more |= {f"{kind}/{name}": values for name, values in summary[kind].get(method, {}).items()}
    values = finals(config, summary["test"][method], more)
    return Cell(method, f"models/seed{{}}/{method}", {"method": method, **given}, values)
