"""A data set of WRENCH (Zhang et al., 2021, arXiv:2109.11377): a folder of train, valid and test JSON.

Each file is `{"ID": {"data": {"text"}, "label", "weak_labels": [...]}}`, -1 where a labelling function abstains;
`label.json`, if there, names the classes. `labeled_ids.json`, if there, lists training rows that repeat the text of
other rows and carry its gold label: they are left out of the pool and offered as the part `labeled`.

The TREC leak. In the published `trec/test.json` every text begins with its fine gold label ("dist How far is it …"),
train and valid have none. `strip_prefix` null strips that first word from a part by this rule: the classes are the six
of TREC, and every text of the part begins with a fine label of its own class (Li and Roth, 2002). No honest part meets
it, and a repaired file is left as it is; one in which half of the texts do and others do not is refused, for a leak may
be in it. True strips the word from the test texts that have one, false leaves the leak in. The test texts keep their
capital letters, where train and valid have none: a cased encoder sees a shift there.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sama.data.texts.base import (
    UNKNOWN,
    TextOptions,
    TextPart,
    TextSource,
    make_part,
    make_source,
    read_utf8,
    same_functions,
    shown,
)
from sama.data.texts.json_text import parse_json
from sama.data.texts.labels import Labels, labels_from
from sama.errors import SamaError

FILES = {"train": "train.json", "validation": "valid.json", "test": "test.json"}
TREC_FINE = {
    "ABBR": "abb exp",
    "DESC": "def desc manner reason",
    "ENTY": "animal body color cremat currency dismed event food instru lang letter other plant product religion sport "
    "substance symbol techmeth termeq veh word",
    "HUM": "desc gr ind title",
    "LOC": "city country mount other state",
    "NUM": "code count date dist money ord other perc period speed temp volsize weight",
}


def open_wrench(options: TextOptions) -> TextSource:
    """Gold labels, votes and texts of the three parts; valid is `validation`.

    Raises:
        SamaError: train.json is missing, or a file is not of this form: which, where, and what was expected.
    """
    folder = options.place()
    rows = {name: _rows(folder / file) for name, file in FILES.items() if name == "train" or (folder / file).is_file()}
    labels = _labels(folder, rows)
    parts = {name: _part(folder / FILES[name], name, held, labels) for name, held in rows.items()}
    for name in ("validation", "test"):
        if name in parts and UNKNOWN in parts[name].label:
            key = list(rows[name])[int(np.argmin(parts[name].label))]
            raise SamaError(f"{folder / FILES[name]}: text {key!r}: expected its gold label, got none")
    facts: dict[str, int] = {}
    for name, part in parts.items():
        parts[name], stripped = _without_leak(folder / FILES[name], name, part, labels, options.strip_prefix)
        facts |= {f"{name}_prefixes_stripped": stripped} if stripped else {}
    apart = _labeled_rows(folder, rows["train"])
    if len(apart):
        facts["labeled_rows_left_out"] = len(apart)
        train = parts["train"]
        parts |= {"train": train.take(np.setdiff1d(np.arange(len(train)), apart)), "labeled": train.take(apart)}
    if not len(parts["train"]):
        raise SamaError(f"{folder / 'labeled_ids.json'}: lists every row of train.json: expected some for the pool")
    return same_functions(make_source(labels.class_names, parts, facts=facts), folder)


def _rows(path: Path) -> dict[str, Any]:
    rows = _load(path)
    if not isinstance(rows, dict):
        raise SamaError(f"{path}: expected an object of texts by id, got {type(rows).__name__}")
    for key, row in rows.items():
        if not (isinstance(row, dict) and isinstance(row.get("data"), dict) and "text" in row["data"]):
            raise SamaError(f'{path}: text {key!r}: expected {{"data": {{"text": …}}, …}}, got {shown(row)}')
        if "label" not in row and "weak_labels" not in row:
            raise SamaError(f"{path}: text {key!r}: expected a key 'label' or 'weak_labels', got neither")
        if not isinstance(row.get("weak_labels", []), list):
            raise SamaError(f"{path}: text {key!r}: expected a list of weak_labels, got {shown(row['weak_labels'])}")
    return rows


def _load(path: Path) -> Any:
    return parse_json(read_utf8(path), str(path))


def _labels(folder: Path, rows: dict[str, dict[str, Any]]) -> Labels:
    path = folder / "label.json"
    if not path.is_file():
        said = (
            (value, f"text {key!r}")
            for key, row in rows["train"].items()
            for value in (row.get("label"), *row.get("weak_labels", []))
        )
        return labels_from(folder, said, folder / FILES["train"])
    names = _load(path)
    if not isinstance(names, dict) or sorted(names) != sorted(str(k) for k in range(len(names))) or not names:
        raise SamaError(f'{path}: expected class names by index, {{"0": …, "1": …}}, got {shown(names)}')
    if len(set(map(str, names.values()))) < len(names):
        raise SamaError(f"{path}: expected a name for each class, got one twice: {shown(names)}")
    return Labels([str(names[str(k)]) for k in range(len(names))], numbers="indices")


def _part(path: Path, name: str, rows: dict[str, Any], labels: Labels) -> TextPart:
    voted = any("weak_labels" in row for row in rows.values())
    return make_part(
        path,
        [f"{name}/{key.zfill(5)}" for key in rows],
        [f"text {key!r}" for key in rows],
        [row["data"]["text"] for row in rows.values()],
        [labels(row.get("label"), f"{path}: text {key!r}: label") for key, row in rows.items()],
        [
            [labels(vote, f"{path}: text {key!r}: weak_labels") for vote in row.get("weak_labels", [])]
            for key, row in rows.items()
        ]
        if voted
        else None,
    )


def _without_leak(path: Path, name: str, part: TextPart, labels: Labels, strip: bool | None) -> tuple[TextPart, int]:
    """The part without the fine labels before its texts, and how many went."""
    if strip is False or (strip and name != "test"):
        return part, 0
    trec = set(labels.class_names) == set(TREC_FINE)
    fine = {k: set(TREC_FINE[class_name].split()) for k, class_name in enumerate(labels.class_names)} if trec else {}
    leaked = []
    for text, label in zip(part.text, part.label.tolist(), strict=True):
        word, _, rest = text.partition(" ")
        leaked.append(word in fine.get(label, ()) and bool(rest.strip()))
    count = sum(leaked)
    if strip and not count:
        raise SamaError(
            f"{path}: strip_prefix true: expected fine labels of TREC before texts, got none in {len(part)} texts: set "
            "it to null or false"
        )
    if strip is None and count < len(part):
        if 2 * count < len(part):
            return part, 0
        odd = leaked.index(False)
        raise SamaError(
            f"{path}: {count} of {len(part)} texts begin with a fine label of TREC, {part.sample_id[odd]} does not: "
            "set data.strip_prefix to true (drop it where it stands) or to false (leave all as they are)"
        )
    bare = tuple(text.partition(" ")[2] if leaks else text for text, leaks in zip(part.text, leaked, strict=True))
    return TextPart(part.sample_id, bare, part.label, part.votes), count


def _labeled_rows(folder: Path, train: dict[str, Any]) -> NDArray[np.int64]:
    """Positions in train of the rows that labeled_ids.json lists, ascending."""
    path = folder / "labeled_ids.json"
    if not path.is_file():
        return np.zeros(0, dtype=np.int64)
    content = _load(path)
    listed = content.get("labeled_ids") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        raise SamaError(f"{path}: expected a list under the key 'labeled_ids', got {shown(content)}")
    position = {key: i for i, key in enumerate(train)}
    absent = [key for key in map(str, listed) if key not in position]
    if absent:
        raise SamaError(f"{path}: id {absent[0]!r} is not in {folder / FILES['train']}")
    return np.unique(np.array([position[str(key)] for key in listed], dtype=np.int64))
