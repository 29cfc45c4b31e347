"""The manifest of texts: `texts.parquet` (every text and its votes) and a manifest a seed (splits and labels)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.data.texts.base import UNKNOWN
from sama.errors import SamaError
from sama.files import read_json, read_parquet, sha256

AGGREGATIONS = ("majority_vote", "dawid_skene")
SPLITS = ("train", "meta", "validation", "test", "uncovered")


@dataclass(frozen=True)
class TextSplit:
    """The n texts of a split.

    `label` is what a learner may see: of the configured aggregation in train (`UNKNOWN` for the uniform label of a text
    on which all functions abstain), clean in meta, validation and test where clean labels are known. `weak` are, in
    train, the labels of each aggregation as class probabilities [n, classes]; `given` where there are no votes.
    """

    name: str
    sample_id: NDArray[np.str_]
    text: tuple[str, ...]
    label: NDArray[np.int64]
    clean_label: NDArray[np.int64]  # UNKNOWN where it is not known
    weak: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def known(self) -> bool:
        """Whether all clean labels are known."""
        return bool((self.clean_label != UNKNOWN).all())

    @property
    def judged(self) -> NDArray[np.bool_]:
        """Which labels can be told right or wrong, [n]: there is one, and the clean one is known."""
        return (self.clean_label != UNKNOWN) & (self.label != UNKNOWN)


@dataclass(frozen=True)
class TextDataset:
    """The texts of one seed."""

    class_names: tuple[str, ...]
    splits: Mapping[str, TextSplit]
    content_hash: str
    path: Path
    facts: Mapping[str, Any]

    def split(self, name: str) -> TextSplit:
        """The split of this name; `meta` is the training split where that is the meta set.

        Raises:
            SamaError: there is no such split.
        """
        if name == "meta" and name not in self.splits and self.facts["meta_set"] == "training":
            name = "train"
        if name == "meta" and name not in self.splits and self.facts["meta_set"] == "validation_as_both":
            name = "validation"
        if name not in self.splits:
            raise SamaError(f"{self.path}: expected texts of the split {name}, got none")
        return self.splits[name]


def load(texts: Path, manifest: Path) -> TextDataset:
    """Read the files of `sama prepare-texts`.

    Raises:
        SamaError: a file is missing or damaged, or the two do not belong together.
    """
    facts = read_json(manifest.with_suffix(".json"))
    table = read_parquet(texts, ["sample_id", "text"])
    content = dict(zip(table["sample_id"].tolist(), table["text"].tolist(), strict=True))
    rows = read_parquet(manifest, ["sample_id", "split", "label", "clean_label", *facts["weak"]])
    missing = [sample_id for sample_id in rows["sample_id"].tolist() if sample_id not in content]
    if missing:
        raise SamaError(f"{texts}: text {missing[0]!r} of {manifest} is not there")
    if facts.get("texts_hash") != texts_hash(table):
        raise SamaError(f"{texts}: not the texts that {manifest} was made with: expected both of one prepare-texts")
    splits = {}
    for name, part in rows.groupby("split"):
        weak = {
            column: np.stack(part[column].to_list()).astype(np.float64)
            for column in (facts["weak"] if name == "train" else ())
        }
        splits[str(name)] = TextSplit(
            name=str(name),
            sample_id=part["sample_id"].to_numpy(str),
            text=tuple(content[sample_id] for sample_id in part["sample_id"].tolist()),
            label=part["label"].to_numpy(np.int64),
            clean_label=part["clean_label"].to_numpy(np.int64),
            weak=weak,
        )
    return TextDataset(tuple(facts["class_names"]), splits, facts["content_hash"], manifest, facts)


def texts_hash(texts: pd.DataFrame) -> str:
    """Of the ids and the texts of `texts.parquet`."""
    return sha256(*texts["sample_id"].tolist(), *texts["text"].tolist())


def content_hash(texts: pd.DataFrame, rows: pd.DataFrame, class_names: tuple[str, ...]) -> str:
    """Of what a manifest says and of the texts that it names."""
    content = dict(zip(texts["sample_id"].tolist(), texts["text"].tolist(), strict=True))
    said = str(rows.to_json(orient="split", double_precision=15))
    return sha256(*class_names, said, *(content[sample_id] for sample_id in rows["sample_id"].tolist()))
