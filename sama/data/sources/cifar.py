"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read and checked against their MD5s by torchvision."""

import numpy as np

from sama.data.sources.base import Part, Source, SourceOptions, array_part
from sama.errors import SamaError


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
    return Source(class_names, 3, train, test)
