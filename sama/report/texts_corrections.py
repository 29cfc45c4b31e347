"""The labels that a correction network would rather have than the weak ones, over the seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sama.data.text_manifest import TextDataset
from sama.data.texts.base import UNKNOWN
from sama.report import reading


def corrects(path: Path) -> bool:
    """Whether these weights come with corrected labels."""
    return "corrected_0" in pq.read_schema(path).names


def corrections(paths: Sequence[Path], data: Sequence[TextDataset]) -> pd.DataFrame:
    """`sample_id, text, label, corrected, gain, weight` of the training texts whose label is corrected, surest first.

    c is the corrected label as class probabilities, its mean over the seeds that trained on the text; `corrected` is
    the largest c, and gain c[corrected] − c[label]. The weight is divided by the mean of its seed. Where seeds drew
    other lots for a tie of votes, the label is that of the first.

    Args:
        paths: weights.parquet of the method, one a seed.
        data: the texts, one entry a seed.
    """
    names = np.array(data[0].class_names)
    columns = ["weight", *(f"corrected_{k}" for k in range(len(names)))]
    ids, texts, labels, values = [], [], [], []
    for path, dataset in zip(paths, data, strict=True):
        train = dataset.split("train")
        table = np.stack(reading.columns(path, columns, train, dataset.path), axis=1)
        known = (train.label != UNKNOWN) & np.isfinite(table).all(axis=1)  # NaN: not visited in training
        table[:, 0] /= max(table[known, 0].mean(), 1e-12)
        ids.append(train.sample_id[known])
        texts.append(np.array(train.text, dtype=object)[known])
        labels.append(train.label[known])
        values.append(table[known])
    sample_id, first, place, seeds = np.unique(
        np.concatenate(ids), return_index=True, return_inverse=True, return_counts=True
    )
    mean = np.zeros((len(sample_id), len(columns)))
    np.add.at(mean, place, np.concatenate(values))
    mean /= seeds[:, None]
    label, soft = np.concatenate(labels)[first], mean[:, 1:]
    guess, each = soft.argmax(axis=1), np.arange(len(label))
    rows = pd.DataFrame(
        {
            "sample_id": sample_id,
            "text": np.concatenate(texts)[first],
            "label": names[label],
            "corrected": names[guess],
            "gain": soft[each, guess] - soft[each, label],
            "weight": mean[:, 0],
        }
    )
    return pd.DataFrame(rows[guess != label]).sort_values(
        ["gain", "sample_id"], ascending=[False, True], ignore_index=True
    )
