"""Lists for whoever owns the images: what is kept, and which labels to look at first. See `run`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, SelectionConfig
from sama.data import manifest as manifests
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import read_parquet, sha256, write_csv, write_json
from sama.images import ImageExamples
from sama.metrics import Progress
from sama.stages._arrays import read_column
from sama.stages._common import device_of, load_weights
from sama.stages._images import classifier
from sama.stages._keys import run_key
from sama.training import predict

METHOD = "meta_weight"
CHUNK = 512  # images in memory at a time
FIRST = (24, 100)  # so many of the most suspect labels are checked
LABEL_COLUMNS = ["sample_id", "observed", "suggested", "suspicion", "held_out", "weight"]
KEPT_COLUMNS = ["pruning_ratio", "sample_id", "label", "weight", "kept_by", "seeds"]


def run(
    *,
    images: Path,
    meta: Path,
    kept: Path,
    out: Path,
    data_root: Path | None = None,
    seeds: tuple[int, ...],
    model: ModelConfig,
    scores: ScoresConfig,
    selection: SelectionConfig,
    runtime: RuntimeConfig,
) -> None:
    """Write what the meta weight keeps, and the labels that held-out predictions contradict, over the seeds.

    OUT/kept.csv: an image is kept at a pruning ratio if at least half of the seeds that trained on it keep it; one that
    no seed trained on is not in it. OUT/suspect_labels.csv: p are the class probabilities of an image by the
    meta-trained models of the seeds that held it out, averaged (where none did: of all seeds, whose models have begun
    to learn the label, wrong or not). The suggested label is the largest p; a label is suspect where that is another,
    and the more, the larger p[suggested] − p[observed]. OUT/summary.json: counts, and, where clean labels are known,
    how many of the suspects are wrong and how many of the suggestions right.

    Suspicion does not come from the weight: unless the meta set is clean, a low weight marks what is easy, not what is
    wrong (docs/log.md has the figures).

    Args:
        images: images.npy (or images.parquet) of `sama prepare`, beside the manifests of the seeds.
        meta: folder of the meta-trained models, one folder seedS a seed.
        kept: folder of the kept lists, one folder seedS a seed; read if meta_weight is among the methods.
        out: folder of kept.csv, suspect_labels.csv and summary.json.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        seeds: the seeds whose verdicts are put together; they must have seen the same labels.
        model: the model.
        scores: the methods.
        selection: the pruning ratios.
        runtime: threads and device.

    Raises:
        SamaError: a file is missing or made for other data, or two seeds saw an image under different labels.
    """
    device = device_of(runtime)
    storage = {"data_root": data_root, "workers": runtime.workers}
    datasets = {
        seed: manifests.load(images, images.parent / f"seed{seed}/manifest.parquet", **storage) for seed in seeds
    }
    judged = _judged(datasets, meta)
    whole = datasets[seeds[0]]
    networks = [_meta_trained(model, datasets[seed], meta / f"seed{seed}", seed, device) for seed in seeds]
    names = np.array(whole.class_names)
    ratios = selection.pruning_ratios if METHOD in scores.methods else ()
    lists = {ratio: [kept / f"seed{seed}" / f"{METHOD}_{ratio}.parquet" for seed in seeds] for ratio in ratios}
    kept_table = _kept(judged, lists, names)
    suspects = _suspects(_predicted(judged, networks, list(datasets.values()), device), names)
    files = [meta / f"seed{seed}" / name for seed in seeds for name in ("weights.parquet", "model.safetensors")]
    files += [path for paths in lists.values() for path in paths]
    hashes = [dataset.content_hash for dataset in datasets.values()]
    summary = {
        "stage": "suspects",
        "seeds": list(seeds),
        "images": len(whole),
        "weighed": int(np.sum(judged["seeds"].to_numpy() > 0)),
        "kept": {str(ratio): int(np.sum(kept_table["pruning_ratio"].to_numpy() == ratio)) for ratio in ratios},
        "held_out": int(np.sum(judged["seeds"].to_numpy() < len(seeds))),
        "suspects": len(suspects),
        "checked": _check(suspects, judged),
        "cost": {"forward_examples": len(judged) * len(seeds), "backward_examples": 0},
        "content_hash": sha256(run_key("suspects", seeds[0], whole, model, selection, *files), *hashes),
    }
    write_csv(out / "kept.csv", kept_table)
    write_csv(out / "suspect_labels.csv", pd.DataFrame(suspects, columns=LABEL_COLUMNS))
    write_json(out / "summary.json", summary)


def _judged(datasets: dict[int, Dataset], meta: Path) -> pd.DataFrame:
    """A row an image: sample_id, label, row, clean (if known), weight, and in how many seeds it was trained on.

    The weight of a seed is divided by its mean there, for its scale means nothing, and averaged over the seeds; NaN
    where no seed trained on the image.
    """
    parts = []
    for seed, dataset in datasets.items():
        train, path = dataset.split("train"), meta / f"seed{seed}" / "weights.parquet"
        weight = read_column(path, "weight", train.sample_id, dataset.path)
        weight = weight / weight.mean() if weight.mean() > 0 else weight
        parts.append(pd.DataFrame({"sample_id": train.sample_id, "label": train.label, "weight": weight}))
    groups = pd.concat(parts).groupby("sample_id", sort=True)
    trained = groups.first()
    contradicted = trained.index.to_numpy(str)[groups["label"].nunique().to_numpy() > 1]
    if len(contradicted):
        raise SamaError(
            f"{contradicted[0]}: two seeds saw it under different labels: with planted noise each seed is a data set "
            "of its own, give one of them"
        )
    whole = next(iter(datasets.values()))
    trained = trained.assign(weight=groups["weight"].mean(), seeds=groups.size()).reindex(whole.sample_id)
    seen = trained["seeds"].notna().to_numpy()
    columns: dict[str, Any] = {"sample_id": whole.sample_id, "row": whole.rows}
    columns["label"] = np.where(seen, trained["label"].to_numpy(), whole.label).astype(np.int64)
    if whole.clean_label is not None:
        columns["clean"] = whole.clean_label
    columns["weight"] = trained["weight"].to_numpy()
    columns["seeds"] = np.where(seen, trained["seeds"].to_numpy(), 0).astype(np.int64)
    return pd.DataFrame(columns)


def _meta_trained(model: ModelConfig, dataset: Dataset, folder: Path, seed: int, device: torch.device) -> nn.Module:
    network = classifier(model, dataset, seed).to(device)
    load_weights(network, folder / "model.safetensors")
    return network


def _kept(judged: pd.DataFrame, lists: dict[float, list[Path]], names: NDArray[np.str_]) -> pd.DataFrame:
    """The images that half of their seeds keep, or more, by ratio; `kept_by` of `seeds` keep it."""
    ids, seeds = judged["sample_id"].to_numpy(str), judged["seeds"].to_numpy()
    tables = [pd.DataFrame(columns=KEPT_COLUMNS)]
    for ratio in sorted(lists):
        kept_by = np.zeros(len(ids), dtype=np.int64)
        for path in lists[ratio]:
            kept = read_parquet(path, ["sample_id"])["sample_id"].to_numpy(str)
            unknown = np.setdiff1d(kept, ids[seeds > 0])
            if len(unknown):
                raise SamaError(f"{path}: {unknown[0]} stands in no train split: was it made for other data?")
            kept_by += np.isin(ids, kept)
        table = judged.assign(pruning_ratio=ratio, label=names[judged["label"].to_numpy()], kept_by=kept_by)
        tables.append(pd.DataFrame(table[(seeds > 0) & (2 * kept_by >= seeds)], columns=KEPT_COLUMNS))
    return tables[0] if len(tables) == 1 else pd.concat(tables[1:])


def _predicted(
    judged: pd.DataFrame, networks: list[nn.Module], datasets: list[Dataset], device: torch.device
) -> pd.DataFrame:
    """`judged` with `guess`, the suggested label as a number, `suspicion`, and `held_out`, how many never saw it."""
    rows, labels = judged["row"].to_numpy(), torch.tensor(judged["label"].to_numpy())
    unseen = ~np.stack([np.isin(rows, dataset.split("train").rows) for dataset in datasets])  # [seeds, n]
    trusted = torch.from_numpy(unseen | ~unseen.any(axis=0))
    guess, suspicion = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
    with Progress(len(rows), "predict") as progress:
        for start in range(0, len(rows), CHUNK):
            chunk = slice(start, start + CHUNK)
            images = torch.from_numpy(np.array(datasets[0].pixels[rows[chunk]]))
            observed = labels[chunk]
            total = torch.zeros(len(images), len(datasets[0].class_names), dtype=torch.float64)
            for network, dataset, use in zip(networks, datasets, trusted, strict=True):
                part = ImageExamples(images, observed, dataset.channel_mean, dataset.channel_std)
                total += use[chunk, None] * predict(network, part, device).double().softmax(dim=-1)
            mean = total / trusted[:, chunk].sum(dim=0)[:, None]
            largest = mean.max(dim=-1)
            guess[chunk] = largest.indices.numpy()
            suspicion[chunk] = (largest.values - mean.gather(1, observed[:, None])[:, 0]).numpy()
            progress.update(start + len(images))
    return judged.assign(guess=guess, suspicion=suspicion, held_out=unseen.sum(axis=0))


def _suspects(judged: pd.DataFrame, names: NDArray[np.str_]) -> pd.DataFrame:
    """Those whose suggested label is not the observed one, the most suspect first; ties by id."""
    label, guess = judged["label"].to_numpy(), judged["guess"].to_numpy()
    found = judged.assign(observed=names[label], suggested=names[guess])[guess != label]
    return pd.DataFrame(found).sort_values(["suspicion", "sample_id"], ascending=[False, True], ignore_index=True)


def _check(suspects: pd.DataFrame, judged: pd.DataFrame) -> dict[str, Any] | None:
    """Where clean labels are known: how many of all labels are wrong, and of the first suspects; else None."""
    if "clean" not in judged:
        return None
    clean = suspects["clean"].to_numpy()
    wrong, right = suspects["label"].to_numpy() != clean, suspects["guess"].to_numpy() == clean
    counts = sorted({count for count in (*FIRST, len(suspects)) if 0 < count <= len(suspects)})
    return {
        "wrong_labels": int(np.sum(judged["label"].to_numpy() != judged["clean"].to_numpy())),
        "first": [
            {"suspects": n, "wrong": int(wrong[:n].sum()), "suggestion_right": int(right[:n].sum())} for n in counts
        ],
    }
