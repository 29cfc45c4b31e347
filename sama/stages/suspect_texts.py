"""Lists for whoever owns the texts: what each text counts, and which labels to look at first. See `run`."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.config import FinetuningConfig, RuntimeConfig, TextDataConfig, TextModelConfig
from sama.data.text_manifest import TextDataset, load
from sama.data.texts.base import UNKNOWN
from sama.files import sha256, write_csv, write_json
from sama.finetuning import METHODS
from sama.stages._arrays import read_column
from sama.stages._common import device_of, load_weights
from sama.stages._texts import Texts
from sama.training import predict

WEIGHT_COLUMNS = ["sample_id", "text", "label", "weight", "seeds"]
SUSPECT_COLUMNS = ["sample_id", "text", "observed", "suggested", "suspicion", "weight"]
FIRST = (24, 100)  # so many of the most suspect labels are checked


def run(
    *,
    texts: Path,
    models: Path,
    data_root: Path | None = None,
    out: Path,
    seeds: tuple[int, ...],
    data: TextDataConfig,
    model: TextModelConfig,
    finetuning: FinetuningConfig,
    runtime: RuntimeConfig,
) -> None:
    """Write what each training text counts and which weak labels the meta-trained models contradict, over the seeds.

    The method is the first of the configured ones that gives weights. OUT/weights.csv: the weight of a text, divided by
    the mean of its seed, averaged over the seeds that trained on it, the lowest first. OUT/suspect_labels.csv: p are
    the class probabilities of a text by that method's models, averaged over the seeds. The suggested label is the
    largest p; a label is suspect where that is another, and the more, the larger p[suggested] − p[observed]. These
    models have seen the weak labels in training: a wrong one that they learned is not found. OUT/summary.json: counts,
    and, of the suspects whose clean label is known, how many are wrong and how many of the suggestions right. Without a
    method that gives weights the lists are empty.

    Args:
        texts: texts.parquet of `sama prepare-texts`, beside the manifests of the seeds.
        models: folder of the finetuned models, seed{S}/METHOD.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        out: folder of weights.csv, suspect_labels.csv and summary.json.
        seeds: the seeds whose verdicts are put together.
        data: which weak labels are learned from.
        model: the encoder.
        finetuning: the methods.
        runtime: threads and device.

    Raises:
        SamaError: a file is missing or made for other data.
    """
    method = next((name for name in finetuning.methods if METHODS[name].watches), None)
    rows = pd.DataFrame(columns=["sample_id", "text", "label", "clean", "weight", "seeds", "guess", "suspicion"])
    names = np.array([], dtype=str)
    if method is not None:
        device = device_of(runtime)
        found = []
        for seed in seeds:
            dataset = load(texts, texts.parent / f"seed{seed}" / "manifest.parquet")
            names = np.array(dataset.class_names)
            source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
            network = source.classifier(seed, masked_head=False, attention="sdpa").to(device)
            folder = models / f"seed{seed}" / method
            load_weights(network.model, folder / "model.safetensors")
            probabilities = predict(network, source.training("weak", data.aggregation), device).softmax(dim=-1).numpy()
            found.append(_of_seed(dataset, folder / "weights.parquet", probabilities))
        rows = _together(found)
    suspects = rows.query(f"label != {UNKNOWN} and guess != label")
    suspects = suspects.sort_values(["suspicion", "sample_id"], ascending=[False, True])
    counts = _named(rows.sort_values(["weight", "sample_id"]), names, {"label": "label"})
    listed = _named(suspects, names, {"observed": "label", "suggested": "guess"})
    write_csv(out / "weights.csv", pd.DataFrame(counts, columns=WEIGHT_COLUMNS))
    write_csv(out / "suspect_labels.csv", pd.DataFrame(listed, columns=SUSPECT_COLUMNS))
    write_json(
        out / "summary.json",
        {
            "stage": "suspect_texts",
            "method": method,
            "seeds": list(seeds),
            "texts": len(rows),
            "suspects": len(suspects),
            "checked": _check(suspects),
            "content_hash": sha256(*(out / name for name in ("weights.csv", "suspect_labels.csv"))),
        },
    )


def _of_seed(dataset: TextDataset, weights: Path, probabilities: NDArray[np.float32]) -> pd.DataFrame:
    train = dataset.split("train")
    weight = read_column(weights, "weight", train.sample_id, dataset.path)
    mean = np.nanmean(weight)  # NaN where a short training did not see the text
    return pd.DataFrame(
        {
            "sample_id": train.sample_id,
            "text": train.text,
            "label": train.label,
            "clean": train.clean_label,
            "weight": weight / mean if mean > 0 else weight,
            "probabilities": list(probabilities.astype(np.float64)),
        }
    )


def _together(found: list[pd.DataFrame]) -> pd.DataFrame:
    """A row a text. Where seeds drew other lots for a tie of votes, the label is that of the first."""
    rows_of_all = pd.concat(found)
    rows = rows_of_all.drop_duplicates("sample_id").sort_values("sample_id", ignore_index=True)
    place = np.searchsorted(rows["sample_id"].to_numpy(str), rows_of_all["sample_id"].to_numpy(str))
    mean = np.zeros((len(rows), len(found[0]["probabilities"].iloc[0])))
    np.add.at(mean, place, np.stack(rows_of_all["probabilities"].tolist()))
    mean /= np.bincount(place)[:, None]
    weight = rows_of_all["weight"].to_numpy(float)
    seen = ~np.isnan(weight)
    seeds, total = np.bincount(place[seen], minlength=len(rows)), np.bincount(place[seen], weight[seen], len(rows))
    guess = mean.argmax(axis=1)
    observed = np.where(rows["label"] == UNKNOWN, guess, rows["label"])
    each = np.arange(len(rows))
    return rows.assign(
        weight=np.divide(total, seeds, out=np.full(len(rows), np.nan), where=seeds > 0),
        seeds=seeds,
        guess=guess,
        suspicion=mean[each, guess] - mean[each, observed],
    )


def _named(rows: pd.DataFrame, names: NDArray[np.str_], columns: dict[str, str]) -> pd.DataFrame:
    """`rows` with columns of class names; empty where a label is not known."""
    if not len(rows):
        return rows.reindex(columns=[*rows.columns, *columns])
    found = {new: np.where(rows[old] == UNKNOWN, "", names[rows[old].to_numpy(int)]) for new, old in columns.items()}
    return rows.assign(**found)


def _check(suspects: pd.DataFrame) -> list[dict[str, Any]] | None:
    """Of the first suspects whose clean label is known: how many are wrong, how many suggestions right; None if no
    clean label is known."""
    judged = suspects.query(f"clean != {UNKNOWN}")
    if not len(judged):
        return None
    observed, guess, clean = (judged[name].to_numpy(int) for name in ("label", "guess", "clean"))
    counts = dict.fromkeys([*(first for first in FIRST if first < len(judged)), len(judged)])
    return [
        {
            "first": count,
            "wrong": int(np.sum(observed[:count] != clean[:count])),
            "suggested_right": int(np.sum(guess[:count] == clean[:count])),
        }
        for count in counts
    ]
