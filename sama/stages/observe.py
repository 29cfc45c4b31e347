"""Train once under observation: the dynamics and the features that several scores read."""

from pathlib import Path
from typing import Any

import numpy as np

from sama.config import ModelConfig, ObserveConfig, RuntimeConfig, TrainingConfig
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import write_json
from sama.metrics import Progress
from sama.observation.features import penultimate_features
from sama.observation.recorder import Recorder
from sama.stages._arrays import write_arrays
from sama.stages._common import Run, device_of
from sama.stages._images import classifier, examples
from sama.stages._keys import run_key
from sama.stages._processes import processes
from sama.training import Cost, train


def run(
    *,
    images: Path,
    manifest: Path,
    data_root: Path | None = None,
    out: Path,
    work: Path,
    seed: int,
    model: ModelConfig,
    training: TrainingConfig,
    observe: ObserveConfig,
    runtime: RuntimeConfig,
) -> None:
    """Train a classifier on the whole training split and record what it says of each example at each visit.

    Of several processes, as torchrun starts them, the first works alone: it is one training. Nothing is computed twice:
    the records are taken from the forwards of training, features from one pass at its end.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        out: folder for dynamics.safetensors, features.safetensors (if wanted), metrics.jsonl, summary.json.
        work: folder for the checkpoint and the growing metrics; an interrupted run continues from it.
        seed: of the replicate.
        model: the model.
        training: the recipe.
        observe: how much of it.
        runtime: threads and device.

    Raises:
        SamaError: the data or the model do not fit, or not one epoch is observed. FloatingPointError: the loss is not
            finite.
    """
    steps = training.steps if observe.steps is None else observe.steps
    if steps > training.steps:  # the schedule ends there: a cosine would rise again
        raise SamaError(f"observe.steps: expected at most training.steps = {training.steps}, got {steps}")
    if not processes().first:
        return
    device = device_of(runtime)
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    split = dataset.split("train")
    data = examples(dataset, "train")
    # a seed of its own: the observed model is none that is evaluated, and none behind another score
    own = int(np.random.SeedSequence([seed, *b"observe"]).generate_state(1)[0])
    key = run_key("observe", seed, dataset, model, training, observe)
    visits = steps * training.batch_size // len(data)
    try:
        recorder = Recorder(data.labels, len(dataset.class_names), visits, observe.divergence)
    except ValueError as error:
        raise SamaError(f"observe.steps: {steps} of {training.batch_size} examples: {error}") from error
    network = classifier(model, dataset, own).to(device)
    with Run(work, key, device) as state, Progress(steps, "observe", start=state.step) as progress:
        if state.checkpointed is not None:
            recorder.load_state_dict(state.checkpointed["recorder"])

        def save(step: int, resumable: dict[str, Any]) -> None:
            state.save(step, {"training": resumable, "recorder": recorder.state_dict()})

        cost = train(
            network,
            data,
            training,
            seed=own,
            device=device,
            steps=steps,
            log=state.metrics.write,
            progress=progress.update,
            resume=state.checkpointed["training"] if state.checkpointed else None,
            save=save,
            observe=recorder,
        )
        records = {name: record.numpy() for name, record in recorder.records.items()}
        write_arrays(out / "dynamics.safetensors", split.sample_id, **records)
        if observe.features:
            features = penultimate_features(network, data, device).numpy()
            write_arrays(out / "features.safetensors", split.sample_id, features=features)
        summary = {
            "stage": "observe",
            "seed": seed,
            "steps": steps,
            "batch_size": training.batch_size,
            "visits": visits,
            "examples": len(data),
            "cost": cost.as_dict(),
            "features_cost": Cost(forward_examples=len(data) if observe.features else 0).as_dict(),
            "content_hash": key,
        }
        write_json(out / "summary.json", summary)
        state.finish(out / "metrics.jsonl")
