"""The sources on real files of a data root: SAMA_DATA_DIR, or these tests skip."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sama.config import validate
from sama.data.manifest import load
from sama.data.sources import SourceOptions, open_source
from sama.files import read_json
from sama.stages.prepare import run


def root(needed: str) -> Path:
    """The data root, where it holds `needed`."""
    folder = os.environ.get("SAMA_DATA_DIR")
    if not folder:
        pytest.skip("needs real data: SAMA_DATA_DIR is not set")
    if not (Path(folder) / needed).is_dir():
        pytest.skip(f"needs real data: SAMA_DATA_DIR has no {needed}")
    return Path(folder)


def prepared(out: Path, folder: Path, **data: Any):
    run(out=out, seeds=(0,), data_root=folder, data=validate({"data": data}).data)
    return load(out / "images.npy", out / "seed0" / "manifest.parquet")


def test_fashion_mnist_subset(tmp_path):
    folder = root("FashionMNIST/raw")
    dataset = prepared(
        tmp_path / "data", folder, source="fashion_mnist", max_images=1000, max_test_images=200,
        noise={"kind": "symmetric", "rate": 0.2},
    )  # fmt: skip
    assert dataset.image_shape == (1, 28, 28)
    counts = {name: len(dataset.split(name)) for name in dataset.split_names}
    assert counts == {"train": 800, "meta": 100, "validation": 100, "test": 200}
    assert np.bincount(dataset.split("test").label).tolist() == [20] * 10
    assert abs(dataset.channel_mean[0] - 0.286) < 0.02 and abs(dataset.channel_std[0] - 0.353) < 0.02
    assert dataset.sample_id[0].startswith("test/") and dataset.sample_id[-1].startswith("train/")


def test_cifar10_with_human_labels(tmp_path):
    folder = root("cifar10_jpeg")
    source = open_source(SourceOptions("parquet", folder, "cifar10_jpeg", "label", "noisy_worse_label"))
    assert len(source.train) == 50000 and source.train.clean_label is not None
    assert abs(np.mean(source.train.label != source.train.clean_label) - 0.402) < 0.001
    dataset = prepared(
        tmp_path / "data", folder, source="parquet", path="cifar10_jpeg", observed_label_column="noisy_worse_label",
        max_images=1000, max_test_images=200,
    )  # fmt: skip
    assert dataset.image_shape == (3, 32, 32) and dataset.class_names[:2] == ("airplane", "automobile")
    noise = read_json(tmp_path / "data" / "seed0" / "manifest.json")["noise"]
    assert 0.3 < noise["train"]["rate"] < 0.5 and 0.2 < noise["validation"]["rate"] < 0.6
    assert noise["meta"]["wrong"] == noise["test"]["wrong"] == 0


def test_tiny_imagenet_with_grey_photographs(tmp_path):
    folder = root("tiny_imagenet10")
    dataset = prepared(
        tmp_path / "data", folder, source="parquet", path="tiny_imagenet10", image_size=32, max_images=600
    )
    assert dataset.image_shape == (3, 32, 32) and dataset.clean_label is None
    assert {name: len(dataset.split(name)) for name in dataset.split_names}["test"] == 500
    train = np.asarray(dataset.split("train").images)
    grey = (train[:, 0] == train[:, 1]).all(axis=(1, 2)) & (train[:, 1] == train[:, 2]).all(axis=(1, 2))
    assert 0 < grey.sum() < 60
