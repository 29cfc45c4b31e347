import gzip
import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from sama.data.sources import SOURCES, SourceOptions, open_source
from sama.data.sources.fashion_mnist import CLASS_NAMES
from sama.errors import SamaError

ON_DISK = [name for name in SOURCES if name != "digits"]


def pixels(part, rows=None):
    rows = np.arange(len(part)) if rows is None else np.asarray(rows)
    return [np.asarray(picture.open()) for picture in part.read(rows)]


def test_digits_are_scaled_to_bytes():
    source = open_source(SourceOptions("digits"))
    assert len(source.train) == 1797 and source.test is None and source.channels == 1
    assert source.class_names == tuple("0123456789")
    assert source.train.sample_id[42] == "digits/00042" and source.train.clean_label is None
    images = pixels(source.train, range(50))
    assert images[0].shape == (8, 8) and images[0].dtype == np.uint8
    assert max(image.max() for image in images) == 255
    assert images[0][0, 2] == round(5 * 255 / 16)


def test_an_unknown_source_gets_the_nearest_name():
    with pytest.raises(SamaError, match=r"data\.source: unknown source 'cifar_10' \(did you mean cifar10\?\)"):
        open_source(SourceOptions("cifar_10"))
    with pytest.raises(SamaError, match=r"unknown source 'xyz' \(known: digits, "):
        open_source(SourceOptions("xyz"))


@pytest.mark.parametrize("name", ON_DISK)
def test_every_source_on_disk_says_which_folder_it_looked_in(name, tmp_path):
    with pytest.raises(SamaError, match=r"data_root: .* got null: set data_root in the config or SAMA_DATA_DIR"):
        open_source(SourceOptions(name, None, "some"))
    absent = tmp_path / "absent"
    with pytest.raises(SamaError, match=f"{absent}.*: no such folder.*data_root .or SAMA_DATA_DIR. sets"):
        open_source(SourceOptions(name, absent, "some"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SamaError, match=f"^{tmp_path / 'empty'}"):
        open_source(SourceOptions(name, tmp_path, "empty"))


@pytest.mark.parametrize("name", ["image_folder", "parquet"])
def test_a_source_without_a_folder_of_its_own_needs_a_path(name, tmp_path):
    with pytest.raises(SamaError, match=f"data.path: source '{name}' needs the folder to read, got null"):
        open_source(SourceOptions(name, tmp_path))


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


@pytest.fixture
def fashion(tmp_path) -> Path:
    """Fashion-MNIST in little: packed and unpacked files."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(count, dtype=np.uint8) % 10)))
    return tmp_path


def test_fashion_mnist_reads_packed_and_unpacked_files(fashion):
    source = open_source(SourceOptions("fashion_mnist", fashion))
    assert source.class_names == CLASS_NAMES and len(CLASS_NAMES) == 10
    assert source.test is not None
    assert (len(source.train), len(source.test)) == (30, 10)
    assert source.train.sample_id[3] == "train/00003" and source.test.sample_id[3] == "test/00003"
    assert source.train.label[13] == 3
    expected = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    assert np.array_equal(pixels(source.train), expected)
    assert [picture.place for picture in source.train.read(np.array([2, 7]))] == ["train/00002", "train/00007"]


def fashion_error(fashion: Path) -> str:
    with pytest.raises(SamaError) as raised:
        open_source(SourceOptions("fashion_mnist", fashion))
    return str(raised.value)


def test_fashion_mnist_names_a_missing_a_cut_and_a_foreign_file(fashion):
    raw = fashion / "FashionMNIST" / "raw"
    images, labels = raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-5])
    assert f"{images}: expected 480 values for shape (30, 4, 4), got 475" in fashion_error(fashion)
    images.write_bytes(b"something else altogether")
    assert f"{images}: expected an idx file of unsigned bytes in 3 dimensions" in fashion_error(fashion)
    images.write_bytes(whole)
    packed = labels.read_bytes()
    labels.write_bytes(packed[:-12])
    assert f"{labels}: cannot be read" in fashion_error(fashion)
    labels.write_bytes(gzip.compress(idx(np.array([1, 10] * 15, dtype=np.uint8))))
    assert "row 1: label 10 is outside the 10 classes 0..9" in fashion_error(fashion)
    labels.write_bytes(gzip.compress(idx(np.zeros(7, dtype=np.uint8))))
    assert "train files hold 30 images but 7 labels" in fashion_error(fashion)
    labels.unlink()
    assert f"{labels}: missing" in fashion_error(fashion)


def write_cifar(root: Path, monkeypatch, name: str, classes: int) -> tuple[np.ndarray, list[int]]:
    """CIFAR in little, in the files of the original: two training images a class and one test image."""
    from torchvision import datasets

    opener = getattr(datasets, name.upper())
    folder = root / opener.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    key, names_key = ("labels", "label_names") if classes == 10 else ("fine_labels", "fine_label_names")

    def write(file: str, content: dict) -> list[str]:
        (folder / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    data = rng.integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
    labels = [i % classes for i in range(2 * classes)]
    names = [f"class {k}" for k in range(classes)]
    monkeypatch.setattr(opener, "train_list", [write("train", {"data": data, key: labels})])
    monkeypatch.setattr(opener, "test_list", [write("test", {"data": data[:classes], key: labels[:classes]})])
    file, md5 = write("names", {names_key: names})
    monkeypatch.setattr(opener, "meta", {"filename": file, "key": names_key, "md5": md5})
    return data, labels


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_files_are_read_by_torchvision(name, classes, tmp_path, monkeypatch):
    data, labels = write_cifar(tmp_path, monkeypatch, name, classes)
    source = open_source(SourceOptions(name, tmp_path))
    assert source.class_names == tuple(f"class {k}" for k in range(classes)) and source.channels == 3
    assert source.test is not None and len(source.test) == classes
    assert source.train.label.tolist() == labels and source.train.clean_label is None
    assert np.array_equal(pixels(source.train, [5])[0], data[5].reshape(3, 32, 32).transpose(1, 2, 0))

    folder = next(tmp_path.iterdir())
    (folder / "train").write_bytes(b"damaged")
    with pytest.raises(SamaError, match=f"{folder}: missing or not the original files of source '{name}'"):
        open_source(SourceOptions(name, tmp_path))


def published(path: Path, content: object, *, numpy1: bool = False) -> None:
    """Write what `torch.save` makes of it; by numpy 1, whose arrays name another module, if asked for."""
    torch.save(content, path)
    if numpy1:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name).replace(b"numpy._core.", b"numpy.core.") for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)


@pytest.mark.parametrize(
    ("name", "classes", "file", "columns"),
    [
        ("cifar10", 10, "CIFAR-10_human.pt", ["worse_label", "aggre_label", "random_label2"]),
        ("cifar100", 100, "CIFAR-100_human.pt", ["noisy_label"]),
    ],
)
@pytest.mark.parametrize("numpy1", [False, True])
def test_cifar_has_the_labels_that_people_gave(name, classes, file, columns, numpy1, tmp_path, monkeypatch):
    _, labels = write_cifar(tmp_path, monkeypatch, name, classes)
    human = {column: (np.array(labels) + 1 + k) % classes for k, column in enumerate(columns)}
    published(tmp_path / file, {"clean_label": np.array(labels), **human}, numpy1=numpy1)
    for column in columns:
        source = open_source(SourceOptions(name, tmp_path, observed_label_column=column))
        assert source.train.label.tolist() == human[column].tolist()
        assert source.train.clean_label is not None and source.train.clean_label.tolist() == labels
        assert source.test is not None and source.test.clean_label is None
        assert source.test.label.tolist() == labels[:classes]


class Harmful:
    def __reduce__(self):
        return print, ("run by the file",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clean_label": np.arange(20) // 2}, "clean_label: row 1: expected 1, .* got 0: it is about other images"),
        ({"worse_label": np.zeros(19, int)}, "worse_label: expected 20 whole numbers, got 19 of type int64"),
        ({"worse_label": np.zeros(20)}, "worse_label: expected 20 whole numbers, got 20 of type float64"),
        ({"worse_label": None}, "worse_label: expected 20 whole numbers, got none"),
        ({"worse_label": np.full(20, 10)}, r"worse_label: row 0: label 10 is outside 0\.\.9"),
        ({"other": Harmful()}, "not a dict of arrays that torch saved"),
        ([1], "expected a dict of arrays, got list"),
        (b"no archive", "not a dict of arrays that torch saved"),
        (None, "missing: expected the label file that CIFAR-N publishes"),
    ],
)
def test_a_wrong_file_of_human_labels_is_one_line(change, message, tmp_path, monkeypatch, capsys):
    _, labels = write_cifar(tmp_path, monkeypatch, "cifar10", 10)
    path = tmp_path / "CIFAR-10_human.pt"
    if isinstance(change, bytes):
        path.write_bytes(change)
    elif change is not None:
        whole = {"clean_label": np.array(labels), "worse_label": np.array(labels)}
        published(path, {**whole, **change} if isinstance(change, dict) else change)
    with pytest.raises(SamaError, match=f"^{path}: {message}") as caught:
        open_source(SourceOptions("cifar10", tmp_path, observed_label_column="worse_label"))
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_a_column_that_cifar_has_not_is_named(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch, "cifar10", 10)
    with pytest.raises(SamaError, match=r"source 'cifar10' has aggre_label, .*human\.pt\), got 'noisy_worse_label'"):
        open_source(SourceOptions("cifar10", tmp_path, observed_label_column="noisy_worse_label"))
