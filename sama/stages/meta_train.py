"""Meta-train base model and meta weight network by SAMA; leave the weight of every training example."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop, StepResult
from sama.config import MetaConfig, ModelConfig, RuntimeConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import write_json, write_parquet
from sama.hypergradient import knobs_of
from sama.metrics import Progress
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from sama.stages._common import Run, classifier, device_of, examples, save_weights
from sama.stages._keys import run_key
from sama.training import Cost, Examples, accuracy, make_optimizer, make_scheduler, predict


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
    validation = examples(dataset, "validation")
    with Run(work, key, device) as state:
        trainer = _assemble(classifier(model, dataset, seed).to(device), training, meta_examples, meta, seed, device)
        watched = _train(trainer, training, validation, meta, state, device)
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
            "cost": _cost(meta, trainer.program).as_dict(),
            "metrics": {"validation/accuracy": accuracy(predict(trainer.model, validation, device), validation.labels)},
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


class WatchedWeights:
    """Means over the visits of an example, after the first `score_from` of the steps, of its weight and its features.

    The weight is the one that the meta network gave it in that base step, before the division by the batch mean. The
    base step computes it anyway, so watching costs nothing; a pass in eval mode would show the network features that
    it has not been trained on, because BatchNorm then uses its running statistics (docs/log.md has the figures).
    """

    def __init__(self, examples: int, program: Reweight, first_step: int) -> None:
        self.names = ("weight", *program.features)
        self.program, self.first_step = program, first_step
        self.sums = torch.zeros(examples, len(self.names), dtype=torch.float64)
        self.visits = torch.zeros(examples, dtype=torch.float64)

    @torch.no_grad()
    def watch(self, result: StepResult) -> None:
        """Add a base step."""
        if result.step < self.first_step:
            return
        for batch, weighting in zip(result.batches, result.weightings, strict=True):
            weights = self.program.raw_weights(dict(self.program.network.named_parameters()), weighting.features)
            values = torch.cat([weights[:, None], weighting.features], dim=1).double().cpu()
            self.sums.index_add_(0, batch.indices, values)
            self.visits.index_add_(0, batch.indices, torch.ones(len(values), dtype=torch.float64))

    def means(self) -> dict[str, np.ndarray]:
        """Name -> mean [n]."""
        columns = (self.sums / self.visits[:, None]).numpy()
        return {name: columns[:, k] for k, name in enumerate(self.names)}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far."""
        return {"sums": self.sums.clone(), "visits": self.visits.clone()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Continue from them."""
        self.sums, self.visits = state_dict["sums"].clone(), state_dict["visits"].clone()


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

    def shuffled(data: Examples, batch_size: int, seed: int) -> ShuffledBatches:
        def make(indices: Tensor, generator: torch.Generator) -> Callable[[], LabelledBatch]:
            inputs = data.begin(indices, device, meta.training.augment, generator)
            return lambda: LabelledBatch(inputs(), data.labels[indices].to(device), indices)

        return ShuffledBatches(len(data), batch_size, seed, make, ahead=data.ahead)

    recipe = meta.training
    optimizer = make_optimizer(recipe.optimizer, model.parameters())
    loop = BilevelLoop(
        program,
        model,
        network,
        optimizer,
        torch.optim.Adam(network.parameters(), lr=meta.learning_rate),
        shuffled(training, recipe.batch_size // recipe.accumulate, 2 * seed),
        shuffled(meta_examples, meta.batch_size // meta.accumulate, 2 * seed + 1),
        method=meta.method,
        alpha=meta.alpha,
        options=meta.options.given(),
        unroll_steps=meta.unroll_steps,
        accumulate=recipe.accumulate,
        meta_accumulate=meta.accumulate,
        clip_norm=recipe.clip_norm,
        meta_clip_norm=meta.clip_norm,
        precision=recipe.precision,
        schedulers=[make_scheduler(recipe, optimizer)],
        after_base_step=lambda: teacher.update(model),
        extra_state={"teacher": teacher},
    )
    return Trainer(model, network, teacher, program, loop)


def _train(
    trainer: Trainer,
    training: Examples,
    validation: Examples,
    meta: MetaConfig,
    state: Run,
    device: torch.device,
) -> WatchedWeights:
    loop, recipe = trainer.loop, meta.training
    first_step = round(meta.score_from * recipe.steps) + 1
    visits = (recipe.steps - first_step + 1) * recipe.batch_size
    if visits < 2 * len(training):  # two permutations: whatever the phase, one of them is whole
        raise SamaError(
            f"meta.training: {recipe.steps} steps of {recipe.batch_size} after score_from {meta.score_from} visit"
            f" {visits} examples, expected at least twice the {len(training)} of the training split"
        )
    watched = WatchedWeights(len(training), trainer.program, first_step)
    loop.extra_state["weights"] = watched
    trainer.model.train()
    meta_loss: Tensor | None = None
    if state.checkpointed is not None:
        loop.load_state_dict(state.checkpointed["loop"])
        meta_loss = state.checkpointed["meta_loss"]
    with Progress(recipe.steps, "meta-train", start=loop.step_count) as progress:
        while loop.step_count < recipe.steps:
            try:
                result = loop.step()
            except ValueError as error:  # a method that this model does not suit says what to do
                raise SamaError(f"meta.method {meta.method}: {error}") from error
            step = result.step
            watched.watch(result)
            meta_loss = result.meta_loss if result.meta_loss is not None else meta_loss
            if step % recipe.log_every == 0 or step == recipe.steps:
                numbers = {
                    "train/loss": result.base_loss.item(),
                    "validation/accuracy": accuracy(predict(trainer.model, validation, device), validation.labels),
                    "learning_rate": loop.base_optimizer.param_groups[0]["lr"],
                }
                if meta_loss is not None:
                    numbers["meta/loss"] = meta_loss.item()
                state.metrics.write(step, numbers)
                progress.update(step, loss=numbers["train/loss"], accuracy=numbers["validation/accuracy"])
            else:
                progress.update(step)
            if step % recipe.checkpoint_every == 0 and step < recipe.steps:
                state.save(step, {"loop": loop.state_dict(), "meta_loss": meta_loss})
    return watched


def _cost(meta: MetaConfig, program: Reweight) -> Cost:
    """Forwards and backwards of the base model (the meta network is not worth counting).

    A base step: forward and backward of the batch, and a teacher's forward. A meta step: forward and backward of the
    meta batch, and `_base_passes` of the base batch. Logging is not counted, as it is not for retraining.
    """
    steps, batch = meta.training.steps, meta.training.batch_size
    meta_steps = steps // meta.unroll_steps
    cost = Cost()
    cost.add(forward=steps * batch, backward=steps * batch)
    if "uncertainty" in program.features:
        cost.add(forward=steps * batch)
    cost.add(forward=meta_steps * meta.batch_size, backward=meta_steps * meta.batch_size)
    forwards, backwards = _base_passes(meta, sum(p.numel() for p in program.model.parameters() if p.requires_grad))
    cost.add(forward=meta_steps * forwards * batch, backward=meta_steps * backwards * batch)
    return cost


def _base_passes(meta: MetaConfig, parameters: int) -> tuple[int, int]:
    """Forwards and backwards of the base batch in one meta step of a weighting program.

    | method | forwards | backwards |
    |---|---|---|
    | difference: central; one-sided; exact (a pass of tangents costs what a backward does) | 2; 1; 1 | 0; 0; 1 |
    | sama, sama_na | those of the difference | |
    | darts, with a virtual step | 1 more | 1 more |
    | neumann, cg: n Hessian products at 3 backwards, a mixed one at 1 | 1 | 1 + 3n + 1 |
    | exact: a Hessian product a base parameter | 1 | 1 + 3n + 1 |
    | itd, K steps: all but the last are passed back through as by a Hessian product | K | K + 3(K−1) + 1 |

    A test compares with torch's FlopCounterMode (`benchmarks/flops.py`).
    """

    def knob(name: str) -> Any:
        return meta.options.given().get(name, knobs_of(meta.method)[name].default)

    if meta.method == "itd":
        return knob("inner_steps"), knob("inner_steps") + 3 * (knob("inner_steps") - 1) + 1
    if meta.method in ("neumann", "cg", "exact"):
        return 1, 1 + 3 * (parameters if meta.method == "exact" else knob("iterations")) + 1
    forwards, backwards = {"central": (2, 0), "one_sided": (1, 0), "exact": (1, 1)}[knob("difference")]
    virtual = int(meta.method == "darts")
    return forwards + virtual, backwards + virtual
