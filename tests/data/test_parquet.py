from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sama.data.sources import SourceOptions, open_source
from sama.errors import SamaError


def png(value: int) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (2, 2), (value % 256, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, values: list[int], **columns: Any) -> None:
    """One file whose row i shows a square of red `values[i]`; other columns as given, `image` too."""
    images = [{"bytes": png(value), "path": f"{value}.png"} for value in values]
    table = {"image": images, "label": [value % 3 for value in values]} | columns
    pq.write_table(pa.table({name: column for name, column in table.items() if column is not None}), path)


def opened(folder: Path, **options: Any):
    return open_source(SourceOptions("parquet", None, str(folder), **options))


def error(folder: Path, **options: Any) -> str:
    with pytest.raises(SamaError) as raised:
        opened(folder, **options)
    return str(raised.value)


@pytest.fixture
def shards(tmp_path) -> Path:
    write(tmp_path / "train-00000-of-00002.parquet", list(range(600)), noisy=[(v + 1) % 3 for v in range(600)])
    write(tmp_path / "train-00001-of-00002.parquet", [7, 8], noisy=[1, 2])
    write(tmp_path / "validation-00000-of-00001.parquet", [5, 6, 7])
    return tmp_path


def test_rows_of_all_shards_with_the_label_of_the_column(shards):
    source = opened(shards)
    assert source.class_names == ("0", "1", "2") and source.channels == 3
    assert source.train.sample_id[[0, 600, 601]].tolist() == [
        "train-00000-of-00002.parquet/00000",
        "train-00001-of-00002.parquet/00000",
        "train-00001-of-00002.parquet/00001",
    ]
    assert source.train.label[[0, 1, 600]].tolist() == [0, 1, 1]
    assert source.train.clean_label is None
    assert source.train.origin[600] == "train-00001-of-00002.parquet"
    assert source.test is not None and source.test.label.tolist() == [2, 0, 1]


def test_chosen_rows_are_decoded_across_batches_and_shards(shards):
    read = list(opened(shards).train.read(np.array([3, 255, 256, 599, 601])))
    assert [np.asarray(picture.open())[0, 0, 0] for picture in read] == [3, 255, 256 % 256, 599 % 256, 8]
    assert read[-1].place == f"{shards / 'train-00001-of-00002.parquet'}: row 1"


def test_an_observed_column_is_the_label_and_the_other_the_clean_one(shards):
    source = opened(shards, observed_label_column="noisy")
    assert source.train.label[:4].tolist() == [1, 2, 0, 1]
    assert source.train.clean_label is not None and source.train.clean_label[:4].tolist() == [0, 1, 2, 0]
    assert source.test is not None and source.test.clean_label is None and source.test.label.tolist() == [2, 0, 1]


def test_a_test_file_goes_before_validation_and_names_come_from_the_list(shards):
    write(shards / "test-00000-of-00001.parquet", [1])
    (shards / "class_names.txt").write_text("red\nless red\nno red\n\n")
    source = opened(shards)
    assert source.test is not None and source.test.sample_id.tolist() == ["test-00000-of-00001.parquet/00000"]
    assert source.class_names == ("red", "less red", "no red")


def test_wrong_class_names_are_named(shards):
    listed = shards / "class_names.txt"
    listed.write_text("red\nblue\nred\n")
    assert f"{listed}: line 3: expected a class name of its own, got 'red'" in error(shards)
    listed.write_text("red\n\nblue\n")
    assert f"{listed}: line 2: expected a class name of its own, got ''" in error(shards)
    listed.write_text("\n")
    assert "got an empty file" in error(shards)


def test_a_label_outside_the_classes_is_named_with_file_and_row(shards):
    (shards / "class_names.txt").write_text("red\nblue\n")
    first = shards / "train-00000-of-00002.parquet"
    assert error(shards) == f"{first}: row 2: column 'label': label 2 is outside the 2 classes 0..1"
    (shards / "class_names.txt").unlink()
    write(shards / "validation-00000-of-00001.parquet", [5, 6], label=[0, 3])
    assert "validation-00000-of-00001.parquet: row 1: column 'label': label 3 is outside the 3 classes" in error(shards)
    write(first, [1, 2], label=[0, -1])
    assert "row 1: column 'label': label -1 is outside the classes 0, 1, …" in error(shards)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": None}, "expected a column 'label', got image"),
        ({"label": ["a", "b"]}, "column 'label': expected whole numbers (class indices), got string"),
        ({"label": [0.0, 1.0]}, "column 'label': expected whole numbers (class indices), got double"),
        ({"label": [0, None]}, "row 1: column 'label': expected a class index, got null"),
        ({"image": None}, "expected a column 'image', got label"),
        ({"image": [png(1), png(2)]}, "column 'image': expected a struct of bytes and path, got binary"),
        ({"image": [{"path": "a"}, {"path": "b"}]}, "column 'image': expected a struct of bytes and path, got struct"),
    ],
)
def test_wrong_columns_are_named(tmp_path, columns, message):
    path = tmp_path / "train-00000-of-00001.parquet"
    write(path, [0, 1], **columns)
    assert error(tmp_path).startswith(f"{path}: {message}")


def test_files_that_are_missing_or_no_parquet(tmp_path):
    assert error(tmp_path) == f"{tmp_path}: expected files train-*.parquet, found none"
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(b"something else")
    assert error(tmp_path).startswith(f"{path}: not a whole parquet file")
    write(path, [0, 1])
    assert "expected a column 'noisy', got image, label" in error(tmp_path, observed_label_column="noisy")


def test_a_corrupt_or_missing_image_is_named_with_its_row(tmp_path):
    path = tmp_path / "train-00000-of-00001.parquet"
    write(path, [0, 1], image=[{"bytes": png(0), "path": ""}, {"bytes": png(1)[:30], "path": ""}])
    with pytest.raises(SamaError, match=f"^{path}: row 1: corrupt image"):
        [picture.open() for picture in opened(tmp_path).train.read(np.arange(2))]
    write(path, [0, 1], image=[{"bytes": None, "path": "elsewhere.png"}, {"bytes": png(1), "path": ""}])
    with pytest.raises(SamaError, match=f"^{path}: row 0: column 'image': expected an encoded image in bytes"):
        [picture.open() for picture in opened(tmp_path).train.read(np.arange(2))]
