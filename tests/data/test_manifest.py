from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sama.data.manifest import load, open_images, read_manifest, split_rows
from sama.errors import SamaError
from sama.files import read_json, write_json, write_parquet

FACTS = {
    "class_names": ["cat", "dog"],
    "channel_mean": [0.5],
    "channel_std": [0.25],
    "meta_set": "clean_held_out",
    "content_hash": "abc",
}
TABLE = {
    "sample_id": ["c", "a", "b", "d"],
    "split": ["train", "meta", "train", "test"],
    "label": [0, 1, 1, 0],
    "clean_label": [0, 1, 0, 0],
    "source": ["x"] * 4,
    "row": [2, 0, 3, 1],
}
IMAGES = np.arange(4 * 6, dtype=np.uint8).reshape(4, 1, 2, 3)


@pytest.fixture
def files(tmp_path):
    return store(tmp_path, {})


def store(folder: Path, changes: dict, facts: dict = FACTS, images: np.ndarray = IMAGES):
    table = {name: column for name, column in {**TABLE, **changes}.items() if column is not None}
    write_parquet(folder / "manifest.parquet", pd.DataFrame(table))
    write_json(folder / "manifest.json", facts)
    np.save(folder / "images.npy", images)
    return folder / "images.npy", folder / "manifest.parquet"


def test_a_split_has_its_rows_sorted_by_id(files):
    dataset = load(*files)
    train = dataset.split("train")
    assert train.sample_id.tolist() == ["b", "c"] and train.sample_id.dtype.kind == "U"
    assert train.label.tolist() == [1, 0] and train.label.dtype == np.int64
    assert train.clean_label is not None and train.clean_label.tolist() == [0, 0]
    assert isinstance(train.images, np.ndarray)
    assert np.array_equal(train.images, IMAGES[[3, 2]]) and train.images.dtype == np.uint8
    assert len(train) == 2 and len(dataset) == 4
    assert dataset.image_shape == (1, 2, 3)
    assert dataset.split_names == ("train", "meta", "test")
    assert (dataset.class_names, dataset.channel_mean, dataset.channel_std) == (("cat", "dog"), (0.5,), (0.25,))
    assert dataset.content_hash == "abc"


def test_pixels_are_a_map_that_cannot_be_written(files):
    pixels = load(*files).pixels
    assert isinstance(pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pixels[0] = 0


def test_the_meta_split_is_train_where_the_training_set_serves(tmp_path):
    assert load(*store(tmp_path, {})).meta_split().sample_id.tolist() == ["a"]
    training = store(tmp_path, {"split": ["train", "train", "train", "test"]}, {**FACTS, "meta_set": "training"})
    assert load(*training).meta_split().sample_id.tolist() == ["a", "b", "c"]


def test_without_clean_labels_there_are_none_and_wrong_ones_are_never_looked_at(tmp_path):
    dataset = load(*store(tmp_path, {"clean_label": None}))
    assert dataset.clean_label is None and dataset.split("train").clean_label is None
    garbage = load(*store(tmp_path, {"clean_label": [-5, 99, 7, 3]}))
    assert garbage.clean_label is not None and garbage.clean_label.tolist() == [99, 7, -5, 3]


def test_an_absent_split_names_those_present(files):
    with pytest.raises(SamaError, match=r"manifest.parquet: no example has split 'validation', got splits train, meta"):
        load(*files).split("validation")
    with pytest.raises(SamaError, match="got splits none"):
        split_rows(np.array([], dtype=np.str_), "train")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_id": ["c", "a", "c", "d"]}, "expected unique sample ids, got 'c' twice"),
        ({"split": ["train", "val", "train", "test"]}, "a: expected a split of train, meta, .* got 'val'"),
        ({"label": [0, 1, 2, 0]}, "b: label 2 is outside the 2 classes"),
        ({"row": [2, 0, 4, 1]}, "b: row 4 is outside the 4 images in .*images.npy"),
        ({"source": None}, "expected a column 'source'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, changes, message):
    with pytest.raises(SamaError, match=f"manifest.parquet: {message}"):
        load(*store(tmp_path, changes))


@pytest.mark.parametrize("missing", ["manifest.parquet", "manifest.json", "images.npy"])
def test_a_missing_file_is_named(files, missing):
    (files[0].parent / missing).unlink()
    with pytest.raises(SamaError, match=f"{missing}: missing"):
        load(*files)


def test_a_missing_fact_is_named(files):
    path = files[0].parent / "manifest.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "channel_std"})
    with pytest.raises(SamaError, match=r"manifest.json: expected a key 'channel_std'"):
        load(*files)


def test_wrong_images_are_named(tmp_path):
    path, _ = store(tmp_path, {}, images=IMAGES.astype(np.float32))
    with pytest.raises(SamaError, match=r"images.npy: expected uint8 \[n, channels, height, width\], got float32"):
        open_images(path)
    path, _ = store(tmp_path, {})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SamaError, match=r"images.npy: not a whole array file"):
        open_images(path)


def test_the_table_alone(files):
    frame = read_manifest(files[1])
    assert list(frame.columns) == list(TABLE)
    assert frame["sample_id"].tolist() == ["a", "b", "c", "d"]
