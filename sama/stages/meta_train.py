"""Meta-train base model and meta weight network by SAMA; leave the weight of every training example."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
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
from sama.stages._processes import Handed, Processes, processes
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

    Several processes, as torchrun starts them, train one model: each takes its share of the `accumulate` micro-batches
    of a step, and the first writes.

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
    ours = processes()
    ours.share("meta.training.accumulate", meta.training.accumulate)
    ours.share("meta.accumulate", meta.accumulate)
    device = device_of(runtime)
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    key = run_key("meta_train", seed, dataset, model, meta)
    training = examples(dataset, "train")
    meta_split = dataset.meta_split()
    meta_examples = examples(dataset, meta_split.name)
    validation = Validation(examples(dataset, "validation"))
    with (
        suppress(Handed),
        ours.joined(device),
        Run(work, key, device, cell="meta", seed=seed, processes=ours) as state,
    ):
        network = classifier(model, dataset, seed).to(device)
        trainer = _assemble(network, training, meta_examples, meta, seed, device, ours)
        watched = _watched(trainer.program, meta, len(training), ours.group())
        _train(trainer, state, meta, validation, watched, device)
        ours.only_first()
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
            **({} if ours.world_size == 1 else {"processes": ours.world_size}),
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
    model: nn.Module,
    training: Examples,
    meta_examples: Examples,
    meta: MetaConfig,
    seed: int,
    device: torch.device,
    ours: Processes,
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
        group=ours.group(),
    )
    if not ours.first:  # dropout of their own; the parameters are the first one's
        torch.manual_seed(int(np.random.SeedSequence([seed, ours.rank]).generate_state(1)[0]))
    return Trainer(model, network, teacher, program, loop)


def _train(
    trainer: Trainer, state: Run, meta: MetaConfig, validation: Validation, watched: Watched, device: torch.device
) -> None:
    ours = state.processes
    with Progress(meta.training.steps, ours.named("meta-train"), start=state.step, silent=not ours.logs) as progress:

        def log(step: int, numbers: dict[str, float]) -> None:
            state.log(step, numbers)
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


def _watched(program: Reweight, meta: MetaConfig, examples: int, group: dist.ProcessGroup | None = None) -> Watched:
    """The weight that the meta network gave an example, before the division by the batch mean, and what it saw."""
    try:
        require_visits(meta.training, meta.score_from, examples)
    except ValueError as error:
        raise SamaError(f"meta.training: {error}") from error

    def values(features: Tensor) -> Tensor:
        weights = program.raw_weights(dict(program.network.named_parameters()), features)
        return torch.cat([weights[:, None], features], dim=1)

    first = first_watched_step(meta.training, meta.score_from)
    return Watched(examples, ("weight", *program.features), first, values, group=group)
