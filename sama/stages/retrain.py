"""Train a classifier from scratch on the kept examples, or on all of them."""

from pathlib import Path
from typing import Literal

import numpy as np

from sama.config import ModelConfig, RetrainConfig, RuntimeConfig, TrainingConfig
from sama.data import manifest as manifests
from sama.files import write_json
from sama.metrics import Progress
from sama.stages._common import Run, device_of, save_weights
from sama.stages._images import classifier, examples, kept_ids
from sama.stages._keys import run_key
from sama.training import Validation, train


def run(
    *,
    images: Path,
    manifest: Path,
    data_root: Path | None = None,
    kept: Path | None = None,
    labels: Literal["observed", "clean"] = "observed",
    cell: str,
    out: Path,
    work: Path,
    seed: int,
    model: ModelConfig,
    training: TrainingConfig,
    retrain: RetrainConfig,
    runtime: RuntimeConfig,
) -> None:
    """Train a classifier on the kept examples of the training split, or on the whole of it.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        kept: parquet file of the kept sample ids; without it the whole training split.
        labels: observed, or clean (the upper bound, for evaluation only).
        cell: name of the result: full, clean, or METHOD_RATIO.
        out: folder for model.safetensors, metrics.jsonl, summary.json.
        work: folder for the checkpoint and the growing metrics; an interrupted run continues from it.
        seed: of initialisation, order of the examples and augmentation.
        model: the model.
        training: the recipe.
        retrain: whether as many steps or as many epochs as on the whole training split.
        runtime: threads and device.

    Raises:
        SamaError: the data or the model do not fit. FloatingPointError: the loss is not finite.
    """
    device = device_of(runtime)
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    ids = None if kept is None else kept_ids(kept, dataset)
    data = examples(dataset, "train", labels=labels, kept=ids)
    validation = Validation(examples(dataset, "validation"))
    recipe = budgeted(training, retrain.budget, kept=len(data), examples=len(dataset.split("train")))
    key = run_key("retrain", seed, dataset, model, recipe, labels, *([] if kept is None else [kept]))
    network = classifier(model, dataset, seed).to(device)
    with (
        Run(work, key, device, cell=cell, seed=seed) as state,
        Progress(recipe.steps, cell, start=state.step) as progress,
    ):
        cost = train(
            network,
            data,
            recipe,
            seed=seed,
            device=device,
            validation=validation,
            log=state.metrics.write,
            progress=progress.update,
            resume=state.checkpointed,
            save=state.save,
        )
        save_weights(out / "model.safetensors", network)
        counts = np.bincount(data.labels.numpy(), minlength=len(dataset.class_names))
        summary = {
            "stage": "retrain",
            "seed": seed,
            "cell": cell,
            "steps": recipe.steps,
            "examples": len(data),
            "examples_by_class": dict(zip(dataset.class_names, counts.tolist(), strict=True)),
            "cost": cost.as_dict(),
            "metrics": validation.numbers(network, recipe.steps, device),
            "content_hash": key,
        }
        write_json(out / "summary.json", summary)
        state.finish(out / "metrics.jsonl")


def budgeted(
    training: TrainingConfig, budget: Literal["steps", "epochs"], *, kept: int, examples: int
) -> TrainingConfig:
    """The recipe for `kept` of the n = `examples` training examples.

    With the budget `steps` it is the same one. With `epochs` its T steps become max(1, round(T · kept / n)), which show
    an example as often; the warm-up shrinks by the same factor, and so does the schedule, which spans the steps.
    """
    if budget == "steps":
        return training
    steps = max(1, round(training.steps * kept / examples))
    return training.model_copy(update={"steps": steps, "warmup_steps": round(training.warmup_steps * kept / examples)})
