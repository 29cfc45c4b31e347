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
from sama.files import copy, read_json, sha256, write_json, write_parquet
from sama.finetuning import METHODS
from sama.stages._common import Run, device_of, machine_key, require_one_a_seed, save_weights
from sama.stages._text_sections import Sections, chosen
from sama.stages._texts import Texts, train_method


def run(
    *,
    texts: Path,
    manifest: tuple[Path, ...],
    data_root: Path | None = None,
    tuning: Path | None = None,
    method: str,
    out: tuple[Path, ...],
    work: Path,
    seed: tuple[int, ...],
    data: TextDataConfig,
    model: TextModelConfig,
    training: TextRecipeConfig,
    meta: TextMetaConfig,
    finetuning: FinetuningConfig,
    runtime: RuntimeConfig,
) -> None:
    """Finetune a text classifier by one method on the training texts of a seed, or of several, one after another.

    Several seeds share a process, whose start may take longer than a training. Those that an earlier run has trained,
    by the same code from the same inputs, are not trained again: their results stay in `work`, and are copied to `out`
    when all are there.

    Args:
        texts: texts.parquet of `sama prepare-texts`; a small BERT's tokenizer stands beside it.
        manifest: manifest.parquet of each seed.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        tuning: JSON file of `sama tune` for this method; without it the configuration is taken as it is.
        method: which.
        out: folder of each seed for model.safetensors, metrics.jsonl, summary.json, and weights.parquet of a meta
            method.
        work: folder for the checkpoint and the growing metrics, and of several seeds for the results of each; an
            interrupted run continues from it.
        seed: of the new weights, order of the texts, dropout.
        data: the measure, and which weak labels are learned from.
        model: the encoder.
        training: the recipe.
        meta: the meta level of meta methods.
        finetuning: what is special to a method.
        runtime: threads and device.

    Raises:
        SamaError: data, model and method do not fit, or there are not as many manifests and folders as seeds.
            FloatingPointError: a loss is not finite.
    """
    if method not in METHODS:
        raise SamaError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")
    require_one_a_seed(seed, manifest=manifest, out=out)
    overlay = {} if tuning is None else chosen(tuning)
    sections = Sections(data, model, training, meta, finetuning).tuned(overlay)
    device = device_of(runtime)
    together = len(seed) > 1
    results = tuple(work / f"results_seed{number}" for number in seed) if together else out
    for number, path, folder in zip(seed, manifest, results, strict=True):
        dataset = load(texts, path)
        key = sections.key("finetune", number, dataset, method)
        record = work / f"seed{number}.json"
        if together and record.exists() and read_json(record) == _made(folder, machine_key(key, device)):
            continue
        with Run(work / f"seed{number}" if together else work, key, device, cell=method, seed=number) as state:
            source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
            trained = train_method(
                source, method, sections, seed=number, device=device, state=state, description=f"{method} seed {number}"
            )
            save_weights(folder / "model.safetensors", trained.model.model)
            if METHODS[method].watches:
                write_parquet(folder / "weights.parquet", _weights(dataset, trained.outcome.watched))
            summary = {
                "stage": "finetune",
                "seed": number,
                "cell": method,
                "steps": trained.steps,
                "best_step": trained.best_step,
                "examples": trained.examples,
                "cost": trained.outcome.cost.as_dict(),
                "metrics": {f"validation/{data.measure}": trained.validation},
                "tuned": overlay,
                "content_hash": key,
            }
            write_json(folder / "summary.json", summary)
            state.finish(folder / "metrics.jsonl")
        if together:
            write_json(record, _made(folder, machine_key(key, device)))
    if together:
        for folder, target in zip(results, out, strict=True):
            for file in _files(folder):
                copy(file, target / file.name)


def _made(folder: Path, key: str) -> dict[str, str]:
    """What says that the results in `folder` are those of a run."""
    return {"key": key, **{file.name: sha256(file) for file in _files(folder)}}


def _files(folder: Path) -> list[Path]:
    """Those that are whole."""
    return [file for file in sorted(folder.glob("*")) if not file.name.startswith(".")]


def _weights(dataset: TextDataset, watched: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({"sample_id": dataset.split("train").sample_id, **watched})
