from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sama.data.sources import SourceOptions, open_source
from sama.errors import SamaError


def draw(path: Path, value: int = 100, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 4), (value,) * len(mode) if len(mode) > 1 else value).save(path)


def opened(folder: Path):
    return open_source(SourceOptions("image_folder", None, str(folder)))


def error(folder: Path) -> str:
    with pytest.raises(SamaError) as raised:
        opened(folder)
    return str(raised.value)


@pytest.fixture
def flat(tmp_path) -> Path:
    for number, name in enumerate(["dog/b.png", "dog/a.jpg", "cat/z.PNG", "cat/y.jpeg", "ant/1.bmp"]):
        draw(tmp_path / name, 10 * number)
    return tmp_path


def test_a_flat_folder_is_one_part_sorted_by_path(flat):
    (flat / "README.txt").write_text("not a class")
    (flat / "dog" / "notes.txt").write_text("not an image")
    (flat / ".cache").mkdir()
    (flat / "dog" / ".b.png").write_bytes(b"hidden")
    source = opened(flat)
    assert source.class_names == ("ant", "cat", "dog") and source.test is None and source.channels == 3
    assert source.train.sample_id.tolist() == ["ant/1.bmp", "cat/y.jpeg", "cat/z.PNG", "dog/a.jpg", "dog/b.png"]
    assert source.train.label.tolist() == [0, 1, 1, 2, 2]
    values = [np.asarray(picture.open())[0, 0, 0] for picture in source.train.read(np.arange(5))]
    assert np.abs(np.array(values, dtype=int) - [40, 30, 20, 10, 0]).max() <= 2


@pytest.mark.parametrize("held_out", ["test", "val", "validation"])
def test_train_beside_a_held_out_folder(tmp_path, held_out):
    for name in ("train/cat/1.png", "train/dog/2.png", f"{held_out}/cat/1.png", f"{held_out}/dog/3.png"):
        draw(tmp_path / name)
    source = opened(tmp_path)
    assert source.train.sample_id.tolist() == ["train/cat/1.png", "train/dog/2.png"]
    assert source.test is not None
    assert source.test.sample_id.tolist() == [f"{held_out}/cat/1.png", f"{held_out}/dog/3.png"]
    assert source.test.label.tolist() == [0, 1]


def test_test_goes_before_val_and_train_stands_alone(tmp_path):
    draw(tmp_path / "train/cat/1.png")
    assert opened(tmp_path).test is None
    draw(tmp_path / "val/cat/1.png")
    draw(tmp_path / "test/cat/1.png")
    source = opened(tmp_path)
    assert source.test is not None and source.test.sample_id.tolist() == ["test/cat/1.png"]


def test_a_class_may_be_called_train(tmp_path):
    draw(tmp_path / "train/1.png")
    draw(tmp_path / "plane/1.png")
    assert opened(tmp_path).class_names == ("plane", "train")


def test_damage_is_named(flat):
    (flat / "emu").mkdir()
    assert f"{flat / 'emu'}: class 'emu' is empty: expected at least one image" in error(flat)
    (flat / "emu" / "deeper").mkdir()
    assert f"{flat / 'emu' / 'deeper'}: a folder inside a class folder" in error(flat)


def test_a_corrupt_image_is_named_when_it_is_read(flat):
    path = flat / "dog" / "b.png"
    path.write_bytes(path.read_bytes()[:40])
    part = opened(flat).train
    with pytest.raises(SamaError, match=f"^{path}: corrupt image"):
        [picture.open() for picture in part.read(np.arange(len(part)))]
    assert len([picture.open() for picture in part.read(np.array([0, 1]))]) == 2


def test_a_test_class_must_be_a_train_class_and_the_other_way_round(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/1.png"):
        draw(tmp_path / name)
    assert f"{tmp_path / 'test' / 'dog'}: missing: class 'dog' has no folder here" in error(tmp_path)
    draw(tmp_path / "test/emu/1.png")
    assert "class 'emu' is outside the 2 classes of train/" in error(tmp_path)


def test_a_folder_beside_train_is_no_surprise_and_no_class_is_an_error(tmp_path):
    draw(tmp_path / "train/cat/1.png")
    draw(tmp_path / "extra/cat/1.png")
    assert f"{tmp_path / 'extra'}: unexpected folder beside train/" in error(tmp_path)
    (tmp_path / "nothing").mkdir()
    assert "expected a folder a class" in error(tmp_path / "nothing")


def test_a_name_that_is_no_text_is_refused(flat):
    draw(flat / "dog" / "c\udcff.png")
    assert "expected a name in UTF-8" in error(flat)
