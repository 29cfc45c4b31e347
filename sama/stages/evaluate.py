"""Read the test split, once: accuracy of every model of a seed, noise detection by score, search cost."""

from pathlib import Path
from typing import Any

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, SelectionConfig
from sama.data import manifest as manifests
from sama.files import read_json, write_json
from sama.measures import detection
from sama.stages._arrays import read_column
from sama.stages._common import device_of, load_weights
from sama.stages._images import classifier, examples
from sama.training import Cost, accuracy, predict


def run(
    *,
    images: Path,
    manifest: Path,
    data_root: Path | None = None,
    models: Path,
    meta: Path,
    scores_dir: Path,
    out: Path,
    seed: int,
    model: ModelConfig,
    scores: ScoresConfig,
    selection: SelectionConfig,
    runtime: RuntimeConfig,
) -> None:
    """Evaluate all models and scores of one seed.

    Args:
        images: images.npy (or images.parquet) of `sama prepare`.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        manifest: manifest.parquet of the seed.
        models: folder of the retrained models of the seed, one folder a cell.
        meta: folder of the meta-trained model of the seed.
        scores_dir: folder of the scores of the seed.
        out: JSON file of accuracies, noise detection and search cost.
        seed: of the replicate.
        model: the model.
        scores: the methods.
        selection: the pruning ratios.
        runtime: threads and device.

    Raises:
        SamaError: a model or a score is missing or made for other data.
    """
    device = device_of(runtime)
    dataset = manifests.load(images, manifest, data_root=data_root, workers=runtime.workers)
    test = examples(dataset, "test")
    train = dataset.split("train")
    network = classifier(model, dataset, seed).to(device)

    def test_accuracy(folder: Path) -> float:
        load_weights(network, folder / "model.safetensors")
        return accuracy(predict(network, test, device), test.labels)

    results: dict[str, Any] = {"full": test_accuracy(models / "full"), "meta": test_accuracy(meta)}
    if train.clean_label is not None:
        results["clean"] = test_accuracy(models / "clean")
    results["pruned"] = {
        method: {str(ratio): test_accuracy(models / f"{method}_{ratio}") for ratio in selection.pruning_ratios}
        for method in scores.methods
    }
    full_cost = _cost(models / "full" / "summary.json").units
    evaluation = {
        "seed": seed,
        "examples": len(test),
        "accuracy": results,
        "noise_detection": {
            method: found
            for method in scores.methods
            if (found := _noise_detection(train, scores_dir / f"{method}.parquet", manifest)) is not None
        },
        "search_cost": {method: _cost(scores_dir / f"{method}.json").units / full_cost for method in scores.methods},
    }
    write_json(out, evaluation)


def _noise_detection(train: manifests.Split, scores: Path, manifest: Path) -> dict[str, float] | None:
    """How well the lowest scores find the wrong labels; None where nothing is known, or there is nothing to find.

    Positives are the examples whose observed label is wrong, ranked by −score.
    """
    if train.clean_label is None:
        return None
    score = read_column(scores, "score", train.sample_id, manifest)
    return detection(train.label != train.clean_label, -score)


def _cost(summary: Path) -> Cost:
    return Cost(**read_json(summary)["cost"])
