"""Meta-train base model and meta weight network by SAMA; leave the weight of every training example."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from sama.bilevel.loop import BilevelLoop
from sama.config import MetaConfig, ModelConfig, RuntimeConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import write_json, write_parquet
from sama.meta_training import Watched, first_watched_step, make_loop, meta_cost, require_visits, run_loop
from sama.metrics import Progress
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from sama.stages._common import Run, device_of, save_weights
from sama.stages._images import classifier, examples
from sama.stages._keys import run_key
from sama.training import Examples, Validation


def run(
    *,
    images: Path,
    manifest: Path,
    data_root: Path | None = None,
    out: Path,
    work: Path,
    seed: int,
    features: tuple[Literal["loss", "uncertainty"], ...] | None = None,
    model: ModelConfig,
    meta: MetaConfig,
    runtime: RuntimeConfig,
) -> None:
    """Meta-train a classifier with SAMA and write the mean importance weight of each training example.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        out: folder for weights.parquet, model.safetensors, meta_network.safetensors, metrics.jsonl, summary.json.
        work: folder for the checkpoint and the growing metrics; an interrupted run continues from it.
        seed: of initialisation, order of the examples and augmentation.
        features: of the meta network, instead of the configured ones.
        model: the base model.
        meta: SAMA and the recipe of the base level.
        runtime: threads and device.

    Raises:
        SamaError: the data or the model do not fit. FloatingPointError: a loss is not finite.
    """
    if features is not None:
        meta = meta.model_copy(update={"network": meta.network.model_copy(update={"features": features})})
    device = device_of(runtime)
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    key = run_key("meta_train", seed, dataset, model, meta)
    training = examples(dataset, "train")
    meta_split = dataset.meta_split()
    meta_examples = examples(dataset, meta_split.name)
    validation = Validation(examples(dataset, "validation"))
    with Run(work, key, device, cell="meta", seed=seed) as state:
        trainer = _assemble(classifier(model, dataset, seed).to(device), training, meta_examples, meta, seed, device)
        watched = _watched(trainer.program, meta, len(training))
        with Progress(meta.training.steps, "meta-train", start=state.step) as progress:

            def log(step: int, numbers: dict[str, float]) -> None:
                state.metrics.write(step, numbers)
                progress.update(step, loss=numbers["train/loss"], accuracy=numbers["validation/accuracy"])

            try:
                run_loop(
                    trainer.loop,
                    meta.training,
                    validation,
                    device=device,
                    watched=watched,
                    log=log,
                    progress=progress.update,
                    resume=state.checkpointed,
                    save=state.save,
                )
            except ValueError as error:  # a method that this model does not suit says what to do
                raise SamaError(f"meta.method {meta.method}: {error}") from error
        table = {"sample_id": dataset.split("train").sample_id, **watched.means()}
        write_parquet(out / "weights.parquet", pd.DataFrame(table))
        save_weights(out / "model.safetensors", trainer.model)
        save_weights(out / "meta_network.safetensors", trainer.network)
        summary = {
            "stage": "meta_train",
            "seed": seed,
            "cell": "meta",
            "steps": meta.training.steps,
            "examples": len(training),
            "meta_examples": len(meta_examples),
            "cost": meta_cost(
                meta.training,
                meta,
                teacher="uncertainty" in trainer.program.features,
                parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            ).as_dict(),
            "metrics": validation.numbers(trainer.model, meta.training.steps, device),
            "content_hash": key,
        }
        write_json(out / "summary.json", summary)
        state.finish(out / "metrics.jsonl")


@dataclass
class Trainer:
    """The bilevel loop with the modules that it trains."""

    model: nn.Module
    network: MetaWeightNetwork
    teacher: EMATeacher
    program: Reweight
    loop: BilevelLoop


def _assemble(
    model: nn.Module, training: Examples, meta_examples: Examples, meta: MetaConfig, seed: int, device: torch.device
) -> Trainer:
    network = MetaWeightNetwork(len(meta.network.features), meta.network.hidden_size).to(device)
    teacher = EMATeacher(model, meta.ema_decay)
    program = Reweight(
        model,
        network,
        features=meta.network.features,
        teacher=teacher,
        normalize=meta.network.normalize == "micro_batch",
    )

    if meta.training.compile:
        program.compile()

    loop = make_loop(
        program,
        model,
        network,
        training,
        meta_examples,
        meta.training,
        meta,
        seed=seed,
        batch=LabelledBatch,
        device=device,
        after_base_step=lambda: teacher.update(model),
        extra_state={"teacher": teacher},
    )
    return Trainer(model, network, teacher, program, loop)


def _watched(program: Reweight, meta: MetaConfig, examples: int) -> Watched:
    """The weight that the meta network gave an example, before the division by the batch mean, and what it saw."""
    try:
        require_visits(meta.training, meta.score_from, examples)
    except ValueError as error:
        raise SamaError(f"meta.training: {error}") from error

    def values(features: Tensor) -> Tensor:
        weights = program.raw_weights(dict(program.network.named_parameters()), features)
        return torch.cat([weights[:, None], features], dim=1)

    first = first_watched_step(meta.training, meta.score_from)
    return Watched(examples, ("weight", *program.features), first, values)
