"""Score the training examples by one method; higher = keep."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, TrainingConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import read_json, write_json, write_parquet
from sama.scores import SCORES, Context, Dynamics
from sama.stages._arrays import read_arrays, read_column
from sama.stages._keys import run_key

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sama.training import Examples


def run(
    *,
    images: Path,
    manifest: Path,
    data_root: Path | None = None,
    weights: Path | None = None,
    observed: Path | None = None,
    method: str,
    out: Path,
    summary: Path,
    seed: int,
    model: ModelConfig,
    training: TrainingConfig,
    scores: ScoresConfig,
    runtime: RuntimeConfig,
) -> None:
    """Score every training example by one method and count what that cost.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        weights: weights.parquet of `sama meta-train`; needed by meta_weight and meta_weight_loss.
        observed: folder of `sama observe`; needed by scores of training dynamics and of features.
        method: one of the scores that `sama config show --describe` lists.
        out: parquet file of sample_id and score; higher = keep.
        summary: JSON file of method, seed and cost.
        seed: of the replicate.
        model: of the models behind a score.
        training: their recipe.
        scores: the knobs of each score.
        runtime: threads and device.

    Raises:
        SamaError: an unknown method, an input that is missing or made for other data, models that train for longer than
            the recipe's schedule, or knobs that do not fit the data.
    """
    if method not in SCORES:
        near = difflib.get_close_matches(method, SCORES, n=3) or list(SCORES)
        raise SamaError(f"unknown score {method!r}: expected {' or '.join(near)}")
    knobs = getattr(scores, method, None)
    options = {} if knobs is None else dict(knobs)
    if options.get("steps", 0) > training.steps:  # the schedule ends there: a cosine would rise again
        got = options["steps"]
        raise SamaError(f"scores.{method}.steps: expected at most training.steps = {training.steps}, got {got}")
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    sources = _Sources(dataset, method, seed, model, training, runtime, weights, observed)
    try:
        values = SCORES[method].compute(sources.context(), **options)
    except ValueError as error:
        raise SamaError(f"scores.{method}: {error}") from error
    frame = pd.DataFrame({"sample_id": sources.split.sample_id, "score": values.astype(np.float64)})
    facts = {"data": dataset.content_hash, "hard_end": SCORES[method].hard_end or "none"}
    write_parquet(out, frame, facts)
    # what this method used, and no more: the rule does not re-run it when another method is added
    parts = [part for part in (knobs, weights, *sources.files_read) if part is not None]
    key = run_key("score", seed, dataset, model, training, method, *parts)
    write_json(summary, {"stage": "score", "method": method, "seed": seed, "cost": sources.cost, "content_hash": key})


@dataclass
class _Sources:
    """What the `Context` of a score is made of, and the cost of what was asked for."""

    dataset: manifests.Dataset
    method: str
    seed: int
    model: ModelConfig
    training: TrainingConfig
    runtime: RuntimeConfig
    weights: Path | None
    observed: Path | None
    cost: dict[str, int] = field(default_factory=lambda: {"forward_examples": 0, "backward_examples": 0})
    files_read: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.split = self.dataset.split("train")

    def context(self) -> Context:
        return Context(
            sample_ids=self.split.sample_id,
            labels=self.split.label,
            seed=self.seed,
            train_models=self.logits,
            gradient_norms=self.gradient_norms,
            dynamics=self.dynamics,
            features=self.features,
            meta_weights=self.meta_weights,
        )

    def spend(self, more: Mapping[str, int]) -> None:
        for direction, examples in more.items():
            self.cost[direction] += examples

    def logits(self, models: int, steps: int) -> np.ndarray:
        from sama.training import predict

        self.spend({"forward_examples": models * len(self.split)})
        return self._of_models(models, steps, predict)

    def gradient_norms(self, models: int, steps: int) -> np.ndarray:
        from sama.observation.gradient_norms import gradient_norms

        self.spend({"forward_examples": models * len(self.split), "backward_examples": models * len(self.split)})
        return self._of_models(models, steps, gradient_norms)

    def _of_models(
        self, models: int, steps: int, say: "Callable[[nn.Module, Examples, torch.device], Tensor]"
    ) -> np.ndarray:
        from sama.metrics import Progress
        from sama.stages._common import classifier, device_of, examples
        from sama.training import train

        device = device_of(self.runtime)
        data = examples(self.dataset, "train")
        said = []
        for number in range(models):
            # a seed of its own, so that no two scores share a model and none is one that is evaluated
            own = int(np.random.SeedSequence([self.seed, number, *self.method.encode()]).generate_state(1)[0])
            network = classifier(self.model, self.dataset, own).to(device)
            with Progress(steps, f"{self.method} model {number + 1}/{models}") as progress:
                spent = train(
                    network, data, self.training, seed=own, device=device, steps=steps, progress=progress.update
                )
            self.spend(spent.as_dict())
            said.append(say(network, data, device).double().numpy())
        return np.stack(said)

    def dynamics(self, epochs: int | None) -> Dynamics:
        """Charges the observed training up to the end of the last epoch that is read."""
        folder, facts = self._observed()
        path = folder / "dynamics.safetensors"
        self.files_read.append(path)
        read = Dynamics(*read_arrays(path, self.split.sample_id, ("probability", "margin", "divergence"))).first(epochs)
        steps = -(-read.visits * facts["examples"] // facts["batch_size"])
        seen = facts["batch_size"] * (facts["steps"] if epochs is None else steps)
        self.spend({"forward_examples": seen, "backward_examples": seen})
        return read

    def features(self) -> np.ndarray:
        """Charges the whole observed training and the pass at its end."""
        folder, facts = self._observed()
        path = folder / "features.safetensors"
        self.files_read.append(path)
        self.spend(facts["cost"])
        self.spend(facts["features_cost"])
        return read_arrays(path, self.split.sample_id, ("features",))[0]

    def _observed(self) -> tuple[Path, dict]:
        if self.observed is None:
            raise SamaError(f"the score {self.method} needs --observed, the folder of observe")
        return self.observed, read_json(self.observed / "summary.json")

    def meta_weights(self) -> np.ndarray:
        if self.weights is None:
            raise SamaError(f"the score {self.method} needs --weights, the weights.parquet of meta-train")
        weights = read_column(self.weights, "weight", self.split.sample_id, self.dataset.path)
        if SCORES[self.method].reads == "meta_loss" and "uncertainty" in pq.read_schema(self.weights).names:
            raise SamaError(
                f"{self.weights}: its meta network saw the uncertainty, expected a meta training with --features loss"
            )
        self.spend(read_json(self.weights.parent / "summary.json")["cost"])
        return weights
