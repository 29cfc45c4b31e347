"""Every score as a detector of planted wrong labels: area under the ROC curve of −score, by method.

`python -m benchmarks.scores` prints a markdown table for scikit-learn's digits with 30 % symmetric noise, the recipe of
config/config.yaml, one replicate a seed (`--seeds 0 1 2`, `--noise 0.3`, `--kind`, `--methods`, `--config`).
0.5 is chance. Below 0.5 a score prefers wrong labels: what keeps hard examples is made for clean data, and says so.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from sama.config import Config, load, merge, validate
from sama.data.manifest import load as load_dataset
from sama.files import read_json
from sama.scores import SCORES
from sama.stages import meta_train, observe, prepare, score

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = 12  # whole epochs of the default recipe: 250 steps of 64 on 1237 examples
SETTINGS: dict[str, Any] = {
    "scores": {
        "grand": {"models": 3, "steps": 100},
        "entropy": {"models": 1, "steps": 250},
        "dyn_unc": {"window": 5},
        "tdds": {"window": 5},
        "dual": {"window": 5, "epochs": EPOCHS},
    }
}


def detection(config: Config, seed: int, methods: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Method -> {"auc", "cost"} of one replicate; cost in full trainings, a backward counting as two forwards."""
    prepare.run(out=folder, seeds=(seed,), data_root=None, data=config.data)
    data = {"images": folder / "images.npy", "manifest": folder / f"seed{seed}" / "manifest.parquet"}
    needed = {SCORES[method].reads for method in methods}
    common = {**data, "seed": seed, "model": config.model, "runtime": config.runtime}
    networks: dict[str, Any] = {"meta": None, "meta_loss": ("loss",)}
    for reads, features in networks.items():
        if reads in needed:
            meta_train.run(
                out=folder / reads, work=folder / "work", meta=config.meta, features=features, **common
            )  # fmt: skip
    if "observed" in needed:
        observe.run(
            out=folder / "observed", work=folder / "work", training=config.training, observe=config.observe, **common
        )
    train = load_dataset(data["images"], data["manifest"]).split("train")
    assert train.clean_label is not None
    wrong = train.label != train.clean_label
    full = 3 * config.training.steps * config.training.batch_size
    found = {}
    for method in methods:
        reads, out = SCORES[method].reads, folder / f"{method}.parquet"
        score.run(
            method=method, out=out, summary=out.with_suffix(".json"), work=folder / "work",
            training=config.training, scores=config.scores,
            weights=folder / reads / "weights.parquet" if reads in ("meta", "meta_loss") else None,
            observed=folder / reads if reads == "observed" else None, **common,
        )  # fmt: skip
        cost = read_json(out.with_suffix(".json"))["cost"]
        found[method] = {
            "auc": float(roc_auc_score(wrong, -pd.read_parquet(out)["score"])),
            "cost": (cost["forward_examples"] + 2 * cost["backward_examples"]) / full,
        }
    return found


def table(found: list[dict[str, dict[str, float]]]) -> str:
    """The replicates as markdown, best detector first."""
    lines = ["| score | AUC | kept first | cost, full trainings |", "|---|---|---|---|"]
    keeps = {"high": "hard examples", "low": "easy examples", None: "neither"}
    rows = {method: np.array([one[method]["auc"] for one in found]) for method in found[0]}
    for method, values in sorted(rows.items(), key=lambda row: -row[1].mean()):
        spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        cost = np.mean([one[method]["cost"] for one in found])
        aware = ", noise-aware" if SCORES[method].noise_aware else ""
        lines.append(
            f"| {method} | {values.mean():.3f}{spread} | {keeps[SCORES[method].hard_end]}{aware} | {cost:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scores", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--noise", type=float, default=0.3, help="fraction of wrong labels")
    parser.add_argument("--kind", default="symmetric", help="kind of the planted noise")
    parser.add_argument("--methods", nargs="+", default=list(SCORES), choices=list(SCORES))
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "config.yaml")
    options = parser.parse_args()
    chosen = merge(load([options.config]).model_dump(mode="json"), SETTINGS)
    config = validate(merge(chosen, {"data": {"noise": {"kind": options.kind, "rate": options.noise}}}))
    found = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found.append(detection(config, seed, options.methods, Path(folder)))
    print(table(found))


if __name__ == "__main__":
    main()
