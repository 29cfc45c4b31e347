"""Keep the outcome of an experiment beside what made it, and print it as markdown tables.

`python -m benchmarks.record results/NAME benchmarks/results/cpu/NAME.json --command "snakemake …"` writes the summary
over the seeds, the configuration, the commit, the command and the hardware of this machine; run it where the experiment
ran. Cells are means ± 1 sample sd over the seeds. Cost is that of the search, in full trainings; on texts that of the
method, in ordinary finetunings of as many steps, and the record keeps what every candidate of the grids got.
"""

import argparse
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from sama.files import read_json, write_json
from sama.report.style import label
from sama.report.texts_style import MEASURES, looks


def hardware() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine. `driver` where there is a GPU."""
    found = {"machine": platform.machine(), "cores": os.cpu_count(), "gpu": None, "torch": torch.__version__}
    if torch.cuda.is_available():
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]
        found |= {"gpu": torch.cuda.get_device_name(), "driver": driver}
    return found


def commit() -> str:
    """The commit of this repository, `-dirty` where files differ from it."""
    ask = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def envelope(
    benchmark: str, command: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What a benchmark writes: `rows`, flat mappings of column to plain value, beside what made them.

    Args:
        benchmark: throughput, scaling, slow_link or peers. command: what was typed. settings: what the rows share.
    """
    return {
        "benchmark": benchmark,
        "command": command,
        "commit": commit(),
        "hardware": hardware(),
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
    }


def recorded(results: Path, command: str) -> dict[str, Any]:
    """The record of the experiment in the folder `results`, without paths of the machine.

    The data root is left out, and of a model's folder all but the last two names.
    """
    config = {**yaml.safe_load((results / "config.yaml").read_text(encoding="utf-8")), "data_root": None}
    name = config.get("model", {}).get("name")
    if name is not None and Path(name).is_absolute():
        config["model"] = {**config["model"], "name": "/".join(Path(name).parts[-2:])}
    return {
        "command": command,
        "commit": commit(),
        "hardware": hardware(),
        "config": config,
        "summary": read_json(results / "summary.json"),
        "tuning": {path.stem: read_json(path) for path in sorted(results.glob("tuning/*.json"))},
    }


def cell(values: list[float], scale: float = 1.0, digits: int = 3) -> str:
    """Mean ± sd of the seeds; the mean alone where there is one."""
    scaled = scale * np.asarray(values)
    spread = f" ± {scaled.std(ddof=1):.{digits}f}" if len(scaled) > 1 else ""
    return f"{scaled.mean():.{digits}f}{spread}"


def tables(summary: dict[str, Any], hypergradient: str = "sama") -> str:
    """Of pruning: test accuracy in percent by method and ratio, the best at the first ratio on top; then the whole
    trainings. Of texts: `text_table`.
    """
    if "test" in summary:
        return text_table(summary, hypergradient)
    pruned_by = summary["pruned"]
    ratios = sorted(next(iter(pruned_by.values())), key=float)
    best = sorted(pruned_by, key=lambda method: -float(np.mean(pruned_by[method][ratios[0]]["accuracy"])))
    rows = [["score", *(f"{100 * float(ratio):g} % pruned" for ratio in ratios), "AUC", "cost"]]
    for method in best:
        accuracies = [cell(pruned_by[method][ratio]["accuracy"], 100, 1) for ratio in ratios]
        found = summary["noise_detection"].get(method)
        auc = cell(found["auc"]) if found else "–"
        rows.append([label(method), *accuracies, auc, f"{np.mean(summary['search_cost'][method]):.2f}"])
    names = {"full": "all observed labels", "clean": "all clean labels", "meta": "the meta-trained model"}
    whole = [f"{name} {cell(summary[key]['accuracy'], 100, 1)}" for key, name in names.items() if summary.get(key)]
    return f"{markdown(rows)}\n\nNothing pruned: {'; '.join(whole)}.\n"


def text_table(summary: dict[str, Any], hypergradient: str) -> str:
    """The measure on test in percent, the best on top, and by how much it is ahead of the plainest method: on average,
    and on the seed where that is least.
    """
    measure, baseline = summary["measure"], next(m for m in ("majority_vote", "finetune") if m in summary["test"])
    found = {method: np.asarray(values[measure]) for method, values in summary["test"].items()}
    names = {method: look.label for method, look in looks(list(found), hypergradient).items()}
    rows = [["method", MEASURES[measure], f"ahead of {names[baseline]} (least)", "AUC", "cost"]]
    for method in sorted(found, key=lambda method: -found[method].mean()):
        lead = 100 * (found[method] - found[baseline])
        ahead = "–" if method == baseline else f"{lead.mean():+.1f} ({lead.min():+.1f})"
        detection = summary["noise_detection"].get(method)
        auc = cell(detection["auc"]) if detection else "–"
        cost = f"{np.mean(summary['cost'][method]):.2f}"
        rows.append([names[method], cell(list(found[method]), 100, 1), ahead, auc, cost])
    return markdown(rows) + "\n"


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def main() -> None:
    """Write the record, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results/NAME")
    parser.add_argument("out", type=Path, help="JSON file")
    parser.add_argument("--command", required=True, help="what was typed to run the experiment")
    arguments = parser.parse_args()
    record = recorded(arguments.results, arguments.command)
    write_json(arguments.out, record)
    print(tables(record["summary"], record["config"].get("meta", {}).get("method", "sama")))


if __name__ == "__main__":
    main()
