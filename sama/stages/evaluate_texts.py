"""Read the test split of texts, once a seed: every method's model, and what the weights and corrections found."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sama.config import FinetuningConfig, RuntimeConfig, TextDataConfig, TextModelConfig
from sama.data.text_manifest import TextDataset, TextSplit, load
from sama.files import read_json, read_parquet, write_json
from sama.finetuning import METHODS
from sama.measures import detection, measure_of
from sama.stages._arrays import read_column
from sama.stages._common import device_of, load_weights, require_one_a_seed
from sama.stages._texts import Texts
from sama.training import Cost, accuracy, predict


def run(
    *,
    texts: Path,
    manifest: tuple[Path, ...],
    data_root: Path | None = None,
    models: tuple[Path, ...],
    out: tuple[Path, ...],
    seed: tuple[int, ...],
    data: TextDataConfig,
    model: TextModelConfig,
    finetuning: FinetuningConfig,
    runtime: RuntimeConfig,
) -> None:
    """Evaluate the models of all methods of a seed, or of several, one after another.

    Args:
        texts: texts.parquet of `sama prepare-texts`.
        manifest: manifest.parquet of each seed.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        models: folder of the finetuned models of each seed, one folder a method.
        out: JSON file of each seed: the measures on test, noise detection, correction and cost.
        seed: of the replicate.
        data: the measure.
        model: the encoder.
        finetuning: the methods.
        runtime: threads and device.

    Raises:
        SamaError: a model is missing or of other data, or there are not as many paths as seeds.
    """
    require_one_a_seed(seed, manifest=manifest, models=models, out=out)
    device = device_of(runtime)
    for number, path, folder, file in zip(seed, manifest, models, out, strict=True):
        dataset = load(texts, path)
        source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
        write_json(file, _of_seed(number, source, folder, data, finetuning, device))


def _of_seed(
    seed: int, source: Texts, models: Path, data: TextDataConfig, finetuning: FinetuningConfig, device: torch.device
) -> dict[str, Any]:
    """What OUT says of a seed."""
    dataset = source.dataset
    test = source.held_out("test")
    network = source.classifier(seed, masked_head=False, attention="sdpa").to(device)
    measure = measure_of(data.measure)
    tested: dict[str, dict[str, float]] = {}
    validation: dict[str, float] = {}
    costs: dict[str, int] = {}
    for method in finetuning.methods:
        load_weights(network.model, models / method / "model.safetensors")
        logits = predict(network, test, device)
        tested[method] = {data.measure: measure(logits, test.labels), "accuracy": accuracy(logits, test.labels)}
        summary = read_json(models / method / "summary.json")
        validation[method] = summary["metrics"][f"validation/{data.measure}"]
        costs[method] = Cost(**summary["cost"]).units
    train = dataset.split("train")
    watched = [method for method in finetuning.methods if METHODS[method].watches]
    found = {method: _found(method, train, models / method / "weights.parquet", dataset) for method in watched}
    cheapest = min(costs.values())
    return {
        "seed": seed,
        "examples": len(test),
        "measured_against": {name: "clean" if dataset.split(name).known else "weak" for name in ("validation", "test")},
        "test": tested,
        "validation": validation,
        "cost": {method: units / cheapest for method, units in costs.items()},
        "noise_detection": {method: row["detection"] for method, row in found.items() if row["detection"]},
        "correction": {method: row["correction"] for method, row in found.items() if row["correction"]},
    }


def _found(method: str, train: TextSplit, weights: Path, dataset: TextDataset) -> dict[str, Any]:
    """How well low weights find wrong labels, and how many corrected labels are right; None where nothing is known."""
    weight = read_column(weights, "weight", train.sample_id, dataset.path)
    judged = train.judged & ~np.isnan(weight)  # a short training does not see every text
    wrong = (train.label != train.clean_label)[judged]
    detected = detection(wrong, -weight[judged])
    correction = None
    if detected is not None and METHODS[method].corrects:
        columns = [f"corrected_{k}" for k in range(len(dataset.class_names))]
        corrected = read_parquet(weights, columns).to_numpy().argmax(axis=1)
        right = (corrected == train.clean_label)[judged]
        correction = {"weak_accuracy": float(np.mean(~wrong)), "corrected_accuracy": float(right.mean())}
    return {"detection": detected, "correction": correction}
