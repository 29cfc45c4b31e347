"""Finetune a text classifier by one method, with the hyperparameters that were chosen for it."""

from pathlib import Path

import numpy as np
import pandas as pd

from sama.config import (
    FinetuningConfig,
    RuntimeConfig,
    TextDataConfig,
    TextMetaConfig,
    TextModelConfig,
    TextRecipeConfig,
)
from sama.data.text_manifest import TextDataset, load
from sama.errors import SamaError
from sama.files import write_json, write_parquet
from sama.finetuning import METHODS
from sama.stages._common import Run, device_of, save_weights
from sama.stages._text_sections import Sections, chosen
from sama.stages._texts import Texts, train_method


def run(
    *,
    texts: Path,
    manifest: Path,
    data_root: Path | None = None,
    tuning: Path | None = None,
    method: str,
    out: Path,
    work: Path,
    seed: int,
    data: TextDataConfig,
    model: TextModelConfig,
    training: TextRecipeConfig,
    meta: TextMetaConfig,
    finetuning: FinetuningConfig,
    runtime: RuntimeConfig,
) -> None:
    """Finetune a text classifier by one method on the training texts of a seed.

    Args:
        texts: texts.parquet of `sama prepare-texts`; a small BERT's tokenizer stands beside it.
        manifest: manifest.parquet of the seed.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        tuning: JSON file of `sama tune` for this method; without it the configuration is taken as it is.
        method: which.
        out: folder for model.safetensors, metrics.jsonl, summary.json, and weights.parquet of a meta method.
        work: folder for the checkpoint and the growing metrics; an interrupted run continues from it.
        seed: of the new weights, order of the texts, dropout.
        data: the measure, and which weak labels are learned from.
        model: the encoder.
        training: the recipe.
        meta: the meta level of meta methods.
        finetuning: what is special to a method.
        runtime: threads and device.

    Raises:
        SamaError: data, model and method do not fit. FloatingPointError: a loss is not finite.
    """
    if method not in METHODS:
        raise SamaError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")
    overlay = {} if tuning is None else chosen(tuning)
    sections = Sections(data, model, training, meta, finetuning).tuned(overlay)
    device = device_of(runtime)
    dataset = load(texts, manifest)
    key = sections.key("finetune", seed, dataset, method)
    with Run(work, key, device, cell=method, seed=seed) as state:
        source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
        trained = train_method(
            source, method, sections, seed=seed, device=device, state=state, description=f"{method} seed {seed}"
        )
        save_weights(out / "model.safetensors", trained.model.model)
        if METHODS[method].watches:
            write_parquet(out / "weights.parquet", _weights(dataset, trained.outcome.watched))
        summary = {
            "stage": "finetune",
            "seed": seed,
            "cell": method,
            "steps": trained.steps,
            "best_step": trained.best_step,
            "examples": trained.examples,
            "cost": trained.outcome.cost.as_dict(),
            "metrics": {f"validation/{data.measure}": trained.validation},
            "tuned": overlay,
            "content_hash": key,
        }
        write_json(out / "summary.json", summary)
        state.finish(out / "metrics.jsonl")


def _weights(dataset: TextDataset, watched: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": dataset.split("train").sample_id, **watched})
