"""`sama init`: what it writes for a folder, and what it says of folders that cannot be learned from."""

import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from sama import own_images
from sama.config import Config, load
from sama.errors import SamaError
from sama.own_images import look_at, write_config

ROOT = Path(__file__).resolve().parents[1]


def draw(folder: Path, count: int, size: tuple[int, int] = (8, 8), mode: str = "L", ending: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{number:03d}.{ending}")
    return folder


def written(folder: Path, name: str = "my.yaml") -> Config:
    """What `sama init` writes for a folder, laid over the default configuration."""
    path = folder.parent / name
    write_config(path, folder, force=True)
    return load([ROOT / "config/config.yaml", path])


def refusal(folder: Path) -> str:
    with pytest.raises(SamaError) as raised:
        write_config(folder.parent / "my.yaml", folder, force=False)
    assert not (folder.parent / "my.yaml").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_classes_counts_sizes_and_modes_are_those_of_the_folder(tmp_path: Path) -> None:
    tmp_path = tmp_path / "mine: # 1"
    draw(tmp_path / "photos" / "cat", 30)
    draw(tmp_path / "photos" / "dog: a # 'b'", 20)
    config = written(tmp_path / "photos", "My photos-2.yaml")
    text = (tmp_path / "My photos-2.yaml").read_text()
    assert text.startswith('# 50 images of 2 classes:\n#   "cat" 30, "dog: a # \'b\'" 20\n')
    assert (config.experiment, config.data.source, config.data.path) == ("my_photos_2", "image_folder", "photos")
    assert config.data_root == str(tmp_path)
    assert (config.data.image_size, config.data.channels, config.model.small_stem) == (8, 1, True)
    assert (config.data.meta_set, config.data.noise.kind, config.data.splits.test) == ("noisy_held_out", "none", 0.2)
    train = look_at(tmp_path / "photos").train
    assert train == 30
    for recipe in (config.training, config.meta.training):
        assert recipe.batch_size <= train and recipe.steps * recipe.batch_size >= 20 * train
    assert config.meta.batch_size <= train


@pytest.mark.parametrize(
    ("size", "side", "small"),
    [((32, 32), 32, True), ((33, 40), 32, False), ((300, 100), 64, False), ((640, 480), 224, False)],
)
def test_small_images_have_a_small_stem_and_their_own_size(
    tmp_path: Path, size: tuple[int, int], side: int, small: bool
) -> None:
    for name in "ab":
        draw(tmp_path / "photos" / name, 10, size, "RGB", "jpg")
    config = written(tmp_path / "photos")
    assert (config.data.image_size, config.model.small_stem, config.data.channels) == (side, small, 3)


def test_grey_images_that_are_stored_in_colour_are_grey_unless_one_is_not(tmp_path: Path) -> None:
    for name in "ab":
        for image in draw(tmp_path / "photos" / name, 10).iterdir():
            Image.open(image).convert("RGBA").save(image)
    assert written(tmp_path / "photos").data.channels == 1
    Image.new("RGB", (8, 8), (9, 9, 10)).save(tmp_path / "photos/b/009.png")
    assert written(tmp_path / "photos").data.channels == 3


def test_a_test_part_of_the_folder_is_the_test_split(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        draw(tmp_path / "photos" / name, 10)
    assert written(tmp_path / "photos").data.splits.test is None
    assert look_at(tmp_path / "photos").train == 16


def shard(folder: Path, labels: list[int], names: list[str]) -> Path:
    stream = BytesIO()
    Image.new("RGB", (6, 6), (200, 10, 10)).save(stream, "PNG")
    folder.mkdir()
    image = pa.array([{"bytes": stream.getvalue(), "path": str(i)} for i in range(len(labels))])
    pq.write_table(pa.table({"image": image, "label": labels}), folder / "train-00000-of-00001.parquet")
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_a_folder_of_parquet_shards_is_known_by_its_files(tmp_path: Path) -> None:
    config = written(shard(tmp_path / "shards", [0, 1] * 20, ["cat", "dog"]))
    assert (config.data.source, config.data.image_size, config.data.channels) == ("parquet", 6, 3)
    assert look_at(tmp_path / "shards").counts == (20, 20)
    (tmp_path / "my.yaml").unlink()
    gap = refusal(shard(tmp_path / "more", [0, 1] * 20, ["cat", "dog", "emu"]))
    assert gap == f"{tmp_path / 'more'}: class 'emu' has no image in the training part"


def test_webdataset_shards_are_known_too_and_many_pixels_stay_encoded(tmp_path: Path, monkeypatch) -> None:
    draw(tmp_path / "photos" / "cat", 30)
    draw(tmp_path / "photos" / "dog", 30)
    assert written(tmp_path / "photos").data.storage == "decoded"
    (tmp_path / "my.yaml").unlink()
    monkeypatch.setattr(own_images, "LARGE", 60 * 64 - 1)
    assert written(tmp_path / "photos").data.storage == "encoded"
    (tmp_path / "my.yaml").unlink()
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for number, path in enumerate(sorted((tmp_path / "photos").rglob("*.*"))):
            archive.add(path, f"{number}.png")
            label = tarfile.TarInfo(f"{number}.cls")
            label.size = 1
            archive.addfile(label, BytesIO(b"1" if path.parent.name == "dog" else b"0"))
    config = written(tmp_path / "shards")
    assert (config.data.source, config.data.path, config.data.image_size) == ("webdataset", "shards", 8)


def test_what_cannot_be_learned_from_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    assert refusal(folder) == f"{folder}: no such folder, expected a folder of images"
    folder.mkdir()
    assert f"{folder}: expected a folder a class (CLASS/file or train/CLASS/file), found none" in refusal(folder)
    draw(folder / "cat", 20)
    assert refusal(folder) == f"{folder}: expected two classes or more, got one: 'cat'"
    (folder / "dog").mkdir()
    assert f"{folder / 'dog'}: class 'dog' is empty" in refusal(folder)
    draw(folder / "dog", 3)
    assert f"{folder}: too few images: class 'dog' has 3, expected 10 or more of each class" in refusal(folder)
    draw(folder / "dog" / "puppies", 3)
    assert f"{folder / 'dog' / 'puppies'}: a folder inside a class folder" in refusal(folder)
    assert "a file, expected a folder of images" in refusal(folder / "cat" / "000.png")
    for path in (*folder.glob("dog/puppies/*"), *folder.glob("dog/*.png"), *folder.glob("cat/*")):
        path.unlink()
    (folder / "dog" / "puppies").rmdir()
    for name in ("cat", "dog"):
        for path in draw(folder / name, 10).iterdir():
            path.write_bytes(b"broken")
    assert "none of 20 images looked at can be decoded" in refusal(folder)


def test_a_file_that_is_there_stays_and_a_name_must_name_an_experiment(tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / "photos" / name, 10)
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    with pytest.raises(SamaError, match=r"my.yaml: exists already; --force writes over it"):
        write_config(path, tmp_path / "photos", force=False)
    assert path.read_text() == "mine"
    for wrong in ("my.txt", "….yaml", "my"):
        with pytest.raises(SamaError, match=r"expected a file NAME\.yaml"):
            write_config(tmp_path / wrong, tmp_path / "photos", force=False)


def test_ten_of_each_class_are_enough(tmp_path: Path) -> None:
    for name in "abc":
        draw(tmp_path / "photos" / name, 10)
    assert look_at(tmp_path / "photos").train == 18


def test_the_command_writes_a_file_that_the_check_accepts(tmp_path: Path) -> None:
    for name in "ab":
        draw(tmp_path / "photos" / name, 12)
    path = tmp_path / "my.yaml"

    def sama(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "sama.cli", *words], cwd=ROOT, capture_output=True, text=True)

    made = sama("init", str(path), "--images", str(tmp_path / "photos"))
    assert made.stdout == f"{path}: 24 images of 2 classes; next: make reproduce CONFIG={path}\n", made.stderr
    assert sama("config", "check", str(path)).stdout == "config of experiment my: valid\n"
    again = sama("init", str(path), "--images", str(tmp_path / "photos"))
    assert (again.returncode, again.stderr) == (1, f"sama init: {path}: exists already; --force writes over it\n")
    assert sama("init", str(path), "--images", str(tmp_path / "photos"), "--force").returncode == 0
    assert "CLASS/file" in sama("init", "--help").stdout
    assert yaml.safe_load(path.read_text())["data"]["path"] == "photos"
