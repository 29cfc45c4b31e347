"""The single files of a results folder: read, checked, in the order of the examples that they are about."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sama.data.manifest import Dataset, Split
from sama.errors import SamaError
from sama.files import read_json, read_parquet

Metrics = dict[str, NDArray[np.float64]]  # "step" and each metric, one entry a line, NaN where a line has none


class Identified(Protocol):
    """Examples of a split, of whatever kind, sorted by their ids."""

    @property
    def sample_id(self) -> NDArray[np.str_]:
        """[n]"""
        ...


@dataclass(frozen=True)
class Weights:
    """Importance weights of the train split of one seed, and what their network saw. All arrays: [n]."""

    weight: NDArray[np.float64]
    loss: NDArray[np.float64] | None  # None where the network did not see it, and it was not measured
    uncertainty: NDArray[np.float64] | None
    wrong: NDArray[np.bool_] | None  # mislabelled; None where clean labels are not known

    @property
    def relative(self) -> NDArray[np.float64]:
        """Weights divided by their mean: their common scale means nothing where a batch is normalised."""
        mean = self.weight.mean()
        return self.weight / mean if mean > 0 else self.weight

    def beside(self, other: "Weights") -> "Weights":
        """These weights; a feature that their network did not see is taken from `other`, of the same examples."""
        loss = other.loss if self.loss is None else self.loss
        return replace(self, loss=loss, uncertainty=other.uncertainty if self.uncertainty is None else self.uncertainty)


@dataclass(frozen=True)
class Training:
    """What one training of a cell took."""

    steps: int
    examples: int  # of its training set
    units: int  # as `sama.training.Cost`: a forward of one example is 1, a backward 2


@dataclass(frozen=True)
class Suspects:
    """What the stage `suspects` found: its summary, and its most suspect labels first, names as they are written."""

    summary: dict[str, Any]
    labels: pd.DataFrame  # sample_id, observed, suggested, suspicion, held_out, weight


def columns(path: Path, names: Sequence[str], train: Identified, where: Path) -> list[NDArray[np.float64]]:
    """The columns of a table that has one row for each example of `train` (of the manifest `where`), in its order."""
    frame = read_parquet(path, ["sample_id", *names])
    ids = frame["sample_id"].to_numpy(str)
    if not np.array_equal(ids, train.sample_id):  # the stages write them in this order; sorting is for other makers
        order = np.argsort(ids, kind="stable")
        ids, frame = ids[order], frame.iloc[order]
    if not np.array_equal(ids, train.sample_id):
        odd = sorted(set(ids.tolist()) ^ set(train.sample_id.tolist()))
        problem = f"{odd[0]} stands in only one of the two" if odd else "an id stands twice"
        raise SamaError(f"{path}: expected the training examples of {where}, once each, but {problem}")
    return [frame[name].to_numpy(np.float64) for name in names]


def kept(path: Path, train: Split, where: Path) -> NDArray[np.bool_]:
    """Which examples of `train` (of the manifest `where`) stand in a list of kept ids."""
    ids = read_parquet(path, ["sample_id"])["sample_id"].to_numpy(str)
    place = np.minimum(np.searchsorted(train.sample_id, ids), len(train) - 1)
    mask = np.zeros(len(train), dtype=bool)
    mask[place[train.sample_id[place] == ids]] = True
    if mask.sum() != len(ids) or not len(ids):
        raise SamaError(f"{path}: expected some training examples of {where}, once each")
    return mask


def weights(path: Path, train: Split, wrong: NDArray[np.bool_] | None, where: Path) -> Weights:
    """The importance weights with those features that the file has."""
    (weight,) = columns(path, ["weight"], train, where)
    present = [name for name in ("loss", "uncertainty") if name in pq.read_schema(path).names]
    seen = dict(zip(present, columns(path, present, train, where), strict=True))
    return Weights(weight, seen.get("loss"), seen.get("uncertainty"), wrong)


def mislabelled(data: Dataset, split: str) -> NDArray[np.bool_] | None:
    """Which examples of `split` have a wrong label, in the order of their ids; None where that is not known."""
    part = data.split(split)
    return None if part.clean_label is None else part.label != part.clean_label


def training(path: Path) -> Training:
    """Steps, examples and cost of a cell, from its summary.json."""
    facts = read_json(path)
    try:
        cost = facts["cost"]
        units = cost["forward_examples"] + 2 * cost["backward_examples"]
        return Training(int(facts["steps"]), int(facts["examples"]), units)
    except (KeyError, TypeError) as error:
        raise SamaError(f"{path}: expected steps, examples and cost of a training ({error})") from error


def suspects(folder: Path) -> Suspects:
    """Both files of the stage `suspects` that the report shows."""
    names = ["sample_id", "observed", "suggested", "suspicion", "held_out", "weight"]
    labels = table(folder / "suspect_labels.csv", names, ("weight",))
    return Suspects(read_json(folder / "summary.json"), labels)


def table(path: Path, names: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """The columns `names` of a CSV file, as they are written; `numbers` as numbers, NaN where one is empty."""
    try:
        content = pd.read_csv(path, dtype=str, keep_default_na=False)  # classes may be called NA, or 1
        if missing := [name for name in names if name not in content]:
            raise SamaError(f"{path}: expected a column {missing[0]!r}, got {', '.join(content)}")
        chosen = pd.DataFrame(content, columns=list(names)).replace({name: {"": "nan"} for name in numbers})
        return chosen.astype(dict.fromkeys(numbers, float))
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    except ValueError as error:
        raise SamaError(f"{path}: not the table that was expected ({error})") from error


def check_lists(path: Path, where: str, value: Any, count: int) -> None:
    """Refuse what is not, in mappings of any depth, a list of `count` numbers; `where` it stands in the file `path`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_lists(path, f"{where}.{key}", inner, count)
        return
    if not isinstance(value, list) or len(value) != count or not all(isinstance(v, int | float) for v in value):
        raise SamaError(f"{path}: {where}: expected {count} numbers, one a seed, got {value!r}")


def metrics(path: Path) -> Metrics:
    """A metrics.jsonl, column by column."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SamaError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict) or "step" not in row:
            raise SamaError(f"{path}, line {number}: expected an object with a key 'step'")
        rows.append(row)
    if not rows:
        raise SamaError(f"{path}: expected at least one line, got none")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
