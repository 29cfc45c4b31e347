"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read and checked against their MD5s by torchvision.

`data.observed_label_column` names labels that people gave to the training images, CIFAR-10N and CIFAR-100N (Wei et al.,
2022, "Learning with Noisy Labels Revisited"), as published in `CIFAR-10_human.pt` and `CIFAR-100_human.pt`.
"""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sama.data.sources.base import Part, Source, SourceOptions, array_part
from sama.errors import SamaError

HUMAN_LABELS = {
    "CIFAR10": (
        "CIFAR-10_human.pt",
        ("aggre_label", "random_label1", "random_label2", "random_label3", "worse_label"),
    ),
    "CIFAR100": ("CIFAR-100_human.pt", ("noisy_label",)),
}


def open_cifar10(options: SourceOptions) -> Source:
    """50000 training and 10000 test images, colour 32x32, 10 classes."""
    return _open(options, "CIFAR10")


def open_cifar100(options: SourceOptions) -> Source:
    """50000 training and 10000 test images, colour 32x32, 100 classes."""
    return _open(options, "CIFAR100")


def _open(options: SourceOptions, dataset: str) -> Source:
    from torchvision import datasets

    root = options.folder(default="")
    opener = getattr(datasets, dataset)

    def part(name: str) -> tuple[Part, tuple[str, ...]]:
        try:
            opened = opener(root=root, train=name == "train", download=False)
        except RuntimeError as error:  # torchvision's way to say that files are missing or changed
            raise SamaError(
                f"{root / opener.base_folder}: missing or not the original files of source {options.name!r}: set "
                f"data_root (or SAMA_DATA_DIR) to the folder that holds {opener.base_folder}"
            ) from error
        labels = np.asarray(opened.targets, dtype=np.int64)
        return array_part(name, f"{options.name}/{name}", opened.data, labels), tuple(opened.classes)

    train, class_names = part("train")
    test, _ = part("test")
    if options.observed_label_column is not None:
        file, columns = HUMAN_LABELS[dataset]
        if options.observed_label_column not in columns:
            raise SamaError(
                f"data.observed_label_column: source {options.name!r} has {', '.join(columns)} ({file}), "
                f"got {options.observed_label_column!r}"
            )
        observed = _human_labels(root / file, options.observed_label_column, train.label, len(class_names))
        train = replace(train, label=observed, clean_label=train.label)
    return Source(class_names, 3, train, test)


def _human_labels(path: Path, column: str, clean: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The labels `column` [n] of the published file, whose `clean_label` says that it is about these examples."""
    if not path.is_file():
        raise SamaError(f"{path}: missing: expected the label file that CIFAR-N publishes (data.observed_label_column)")
    content = _load_arrays(path)
    labels = {}
    for name in ("clean_label", column):
        values = content.get(name)
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or values.size != len(clean):
            raise SamaError(f"{path}: {name}: expected {len(clean)} whole numbers, got {_shown(values)}")
        labels[name] = values.reshape(-1).astype(np.int64)
    different = np.flatnonzero(labels["clean_label"] != clean)
    if len(different):
        row = different[0]
        raise SamaError(
            f"{path}: clean_label: row {row}: expected {clean[row]}, the label of the image there, got "
            f"{labels['clean_label'][row]}: it is about other images, or in another order"
        )
    outside = np.flatnonzero((labels[column] < 0) | (labels[column] >= classes))
    if len(outside):
        row = outside[0]
        raise SamaError(f"{path}: {column}: row {row}: label {labels[column][row]} is outside 0..{classes - 1}")
    return labels[column]


def _load_arrays(path: Path) -> dict[str, object]:
    """A dict of numpy arrays that torch saved; nothing but such arrays is ever unpickled."""
    import torch
    from numpy._core.multiarray import _reconstruct

    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1's name stands in the published files
    kinds = np.typecodes["AllInteger"] + np.typecodes["Float"]  # a wrong kind gets a line of its own
    allowed = [np.ndarray, np.dtype, *(type(np.dtype(code)) for code in kinds)]
    with torch.serialization.safe_globals([*allowed, *((_reconstruct, f"{m}._reconstruct") for m in modules)]):
        try:
            content = torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
            raise SamaError(f"{path}: not a dict of arrays that torch saved ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise SamaError(f"{path}: expected a dict of arrays, got {type(content).__name__}")
    return content


def _shown(values: object) -> str:
    if isinstance(values, np.ndarray):
        return f"{values.size} of type {values.dtype}"
    return "none" if values is None else type(values).__name__
