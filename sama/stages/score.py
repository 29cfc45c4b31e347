"""Score the training examples by one method; higher = keep."""

from pathlib import Path

import numpy as np
import pandas as pd

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, TrainingConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import read_json, read_parquet, write_json, write_parquet
from sama.scores import SCORES, Context
from sama.stages._keys import run_key


def run(
    *,
    images: Path,
    manifest: Path,
    weights: Path | None = None,
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
        images: images.npy of `sama prepare`.
        manifest: manifest.parquet of the seed.
        weights: weights.parquet of `sama meta-train`; needed by the method meta_weight.
        method: meta_weight, random, el2n or margin.
        out: parquet file of sample_id and score; higher = keep.
        summary: JSON file of method, seed and cost.
        seed: of the replicate.
        model: of the models behind a score.
        training: their recipe.
        scores: how many models, how many steps.
        runtime: threads and device.

    Raises:
        SamaError: an unknown method, weights that are missing or made for other data, or models that train for longer
            than the recipe's schedule.
    """
    if method not in SCORES:
        raise SamaError(f"unknown score {method!r}: expected one of {', '.join(SCORES)}")
    dataset = manifests.load(images, manifest)
    split = dataset.split("train")
    cost = {"forward_examples": 0, "backward_examples": 0}

    def spend(more: dict[str, int]) -> None:
        for direction, examples in more.items():
            cost[direction] += examples

    def train_models(models: int, steps: int) -> np.ndarray:
        from sama.metrics import Progress
        from sama.stages._common import classifier, device_of, examples
        from sama.training import predict, train

        device = device_of(runtime)
        data = examples(dataset, "train")
        logits = []
        for number in range(models):
            # a seed of its own, so that no two scores share a model and none is one that is evaluated
            own = int(np.random.SeedSequence([seed, number, *method.encode()]).generate_state(1)[0])
            network = classifier(model, dataset, own).to(device)
            with Progress(steps, f"{method} model {number + 1}/{models}") as progress:
                spent = train(network, data, training, seed=own, device=device, steps=steps, progress=progress.update)
            logits.append(predict(network, data, device).double().numpy())
            spend(spent.as_dict())
            spend({"forward_examples": len(data)})
        return np.stack(logits)

    def meta_weights() -> np.ndarray:
        if weights is None:
            raise SamaError("the score meta_weight needs --weights, the weights.parquet of meta-train")
        frame = read_parquet(weights, ["sample_id", "weight"])
        if not np.array_equal(frame["sample_id"].to_numpy(str), split.sample_id):
            raise SamaError(f"{weights}: its sample ids are not those of split train in {manifest}")
        spend(read_json(weights.parent / "summary.json")["cost"])
        return frame["weight"].to_numpy(np.float64)

    proxy = getattr(scores, method, None)
    if proxy and proxy.steps > training.steps:  # the schedule ends there: a cosine would rise again
        raise SamaError(f"scores.{method}.steps: expected at most training.steps = {training.steps}, got {proxy.steps}")
    context = Context(
        sample_ids=split.sample_id,
        labels=split.label,
        seed=seed,
        models=proxy.models if proxy else 0,
        steps=proxy.steps if proxy else 0,
        train_models=train_models,
        meta_weights=meta_weights,
    )
    values = SCORES[method](context)
    write_parquet(out, pd.DataFrame({"sample_id": split.sample_id, "score": values.astype(np.float64)}))
    # what this method used, and no more: the rule does not re-run it when another method is added
    parts = [part for part in (proxy, weights) if part is not None]
    key = run_key("score", seed, dataset, model, training, method, *parts)
    write_json(summary, {"stage": "score", "method": method, "seed": seed, "cost": cost, "content_hash": key})
