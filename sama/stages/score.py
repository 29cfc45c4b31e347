"""Score the training examples by one method; higher = keep."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, TrainingConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import read_json, sha256, write_json, write_parquet
from sama.scores import SCORES, Context
from sama.scores.context import Reduce
from sama.stages._arrays import read_array, read_column, read_visits
from sama.stages._keys import run_key
from sama.stages._processes import Handed, Processes, processes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sama.stages._passes import Passes, Say

BATCH = 512  # examples a chunk of a pass


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
    work: Path,
    seed: int,
    model: ModelConfig,
    training: TrainingConfig,
    scores: ScoresConfig,
    runtime: RuntimeConfig,
) -> None:
    """Score every training example by one method and count what that cost.

    Several processes, as torchrun starts them, share the models and the passes; the scores are the same to the last
    bit, and the first process writes them.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        weights: weights.parquet of `sama meta-train`; needed by meta_weight and meta_weight_loss.
        observed: folder of `sama observe`; needed by scores of training dynamics and of features.
        method: one of the scores that `sama config show --describe` lists.
        out: parquet file of sample_id and score; higher = keep.
        summary: JSON file of method, seed and cost.
        work: folder for what an interrupted run continues from: models, the training in progress, parts of a pass.
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
    # what this method uses, and no more: the rule does not re-run it when another method is added
    parts = (dataset, model, training, method, *([] if knobs is None else [knobs]))
    ours = processes()
    key = run_key("score", seed, *parts)
    sources = _Sources(dataset, method, seed, model, training, runtime, weights, observed, work, key, ours)
    try:
        values = SCORES[method].compute(sources.context(), **options)
        ours.only_first()
    except Handed:
        return
    except ValueError as error:
        raise SamaError(f"scores.{method}: {error}") from error
    frame = pd.DataFrame({"sample_id": sources.split.sample_id, "score": values.astype(np.float64)})
    facts = {"data": dataset.content_hash, "hard_end": SCORES[method].hard_end or "none"}
    write_parquet(out, frame, facts)
    key = run_key("score", seed, *parts, *([] if weights is None else [weights]), *sources.files_read)
    write_json(summary, {"stage": "score", "method": method, "seed": seed, "cost": sources.cost, "content_hash": key})
    sources.finish()


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
    work: Path
    key: str
    processes: Processes
    cost: dict[str, int] = field(default_factory=lambda: {"forward_examples": 0, "backward_examples": 0})
    files_read: list[Path] = field(default_factory=list)
    passes: "Passes | None" = None

    def __post_init__(self) -> None:
        self.split = self.dataset.split("train")

    def context(self) -> Context:
        return Context(
            sample_ids=self.split.sample_id,
            labels=self.split.label,
            seed=self.seed,
            of_models=self.of_models,
            gradient_norms=self.gradient_norms,
            dynamics=self.dynamics,
            features=self.features,
            meta_weights=self.meta_weights,
        )

    def spend(self, more: Mapping[str, int]) -> None:
        for direction, examples in more.items():
            self.cost[direction] += examples

    def finish(self) -> None:
        """What the next run would go on from is not needed any more."""
        if self.passes:
            self.passes.finish()

    def of_models(self, models: int, steps: int, reduce: Reduce) -> np.ndarray:
        def say(network: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
            import torch

            with torch.no_grad():
                logits = network(inputs).float().cpu().double()
            return torch.from_numpy(reduce(logits.numpy(), labels.numpy()).astype(np.float64))

        self.spend({"forward_examples": models * len(self.split)})
        return self._trained(models, steps, say, BATCH)

    def gradient_norms(self, models: int, steps: int) -> np.ndarray:
        from sama.observation.gradient_norms import CHUNK, batch_gradient_norms

        self.spend({"forward_examples": models * len(self.split), "backward_examples": models * len(self.split)})
        return self._trained(models, steps, lambda net, x, y: batch_gradient_norms(net, x, y.to(x.device)), CHUNK)

    def _trained(self, models: int, steps: int, say: "Say", batch_size: int) -> np.ndarray:
        """[models, n]; whole rounds of models are dealt to the processes, the passes over the others are."""
        from sama.stages._images import classifier, examples

        seen = models * steps * self.training.batch_size
        self.spend({"forward_examples": seen, "backward_examples": seen})
        ours = self.processes
        dealt = models - models % ours.world_size
        with self._joined() as passes:
            data = examples(self.dataset, "train")
            answers = []
            for number in range(models):
                if number < dealt and number % ours.world_size != ours.rank:
                    continue
                name, shared = f"{self.method}_model{number}", number >= dealt
                # a seed of its own, so that no two scores share a model and none is one that is evaluated
                own = int(np.random.SeedSequence([self.seed, number, *self.method.encode()]).generate_state(1)[0])

                def trained(name: str = name, own: int = own, shared: bool = shared) -> "nn.Module":
                    network = classifier(self.model, self.dataset, own).to(passes.device)
                    return passes.trained(name, network, data, self.training, seed=own, steps=steps, shared=shared)

                answers.append((number, *passes.over(name, trained, say, data, batch_size=batch_size, shared=shared)))
            return self._whole(models, ours.gather(answers))

    @contextmanager
    def _joined(self, *more: Path) -> "Iterator[Passes]":
        from sama.stages._common import device_of
        from sama.stages._passes import Passes

        device = device_of(self.runtime)
        self.passes = Passes(self.work, sha256(self.key, *more), self.processes, device)
        with self.processes.joined(device):
            yield self.passes

    def _whole(self, models: int, gathered: "list[list[tuple[int, np.ndarray, np.ndarray]]]") -> np.ndarray:
        """[models, n, ...] of the answers of all processes."""
        parts = [part for one in gathered for part in one if len(part[1])]
        whole = np.empty((models, len(self.split), *parts[0][2].shape[1:]), parts[0][2].dtype)
        for number, rows, values in parts:
            whole[number, rows] = values
        return whole

    def dynamics(self, name: str, epochs: int | None) -> np.ndarray:
        """Charges the observed training up to the end of the last epoch that is read."""
        self.processes.only_first()
        folder, facts = self._observed()
        path = folder / "dynamics.safetensors"
        self.files_read.append(path)
        read = read_visits(path, self.split.sample_id, name, epochs, f"scores.{self.method}")
        steps = -(-len(read) * facts["examples"] // facts["batch_size"])
        seen = facts["batch_size"] * (facts["steps"] if epochs is None else steps)
        self.spend({"forward_examples": seen, "backward_examples": seen})
        return read

    def features(self, encoder: str | None, weights: str | None) -> np.ndarray:
        """Charges a pass of the encoder; or the whole observed training, and the pass at its end."""
        if encoder is not None:
            return self._encoded(encoder, None if weights is None else Path(weights))
        self.processes.only_first()
        folder, facts = self._observed()
        path = folder / "features.safetensors"
        self.files_read.append(path)
        self.spend(facts["cost"])
        self.spend(facts["features_cost"])
        return read_array(path, self.split.sample_id, "features")

    def _encoded(self, encoder: str, weights: Path | None) -> np.ndarray:
        import torch

        from sama.networks.encoder import load_encoder
        from sama.stages._images import examples

        def say(network: "nn.Module", inputs: "Tensor", labels: "Tensor") -> "Tensor":
            with torch.no_grad():
                return network(inputs).float()

        self.spend({"forward_examples": len(self.split)})
        network = load_encoder(encoder, weights)
        files = [] if weights is None else [weights]
        self.files_read += files
        with self._joined(*files) as passes:
            network.to(passes.device)
            data = examples(self.dataset, "train")
            channels = len(data.mean)
            pixels = replace(data, mean=(0.0,) * channels, std=(1.0,) * channels)
            part = passes.over("encoder", lambda: network, say, pixels, batch_size=BATCH // 4, shared=True)
            return self._whole(1, self.processes.gather([(0, *part)]))[0]

    def _observed(self) -> tuple[Path, dict]:
        if self.observed is None:
            raise SamaError(f"the score {self.method} needs --observed, the folder of observe")
        return self.observed, read_json(self.observed / "summary.json")

    def meta_weights(self) -> np.ndarray:
        self.processes.only_first()
        if self.weights is None:
            raise SamaError(f"the score {self.method} needs --weights, the weights.parquet of meta-train")
        weights = read_column(self.weights, "weight", self.split.sample_id, self.dataset.path)
        if SCORES[self.method].reads == "meta_loss" and "uncertainty" in pq.read_schema(self.weights).names:
            raise SamaError(
                f"{self.weights}: its meta network saw the uncertainty, expected a meta training with --features loss"
            )
        self.spend(read_json(self.weights.parent / "summary.json")["cost"])
        return weights
