import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sama.config import validate
from sama.data.manifest import Dataset, Split, load
from sama.data.sources import SourceOptions, open_source
from sama.errors import SamaError
from sama.files import read_json
from sama.stages.prepare import run

NOISY = {"kind": "symmetric", "rate": 0.3}


def prepare(out: Path, seeds: tuple[int, ...] = (0,), root: Path | None = None, **data: Any) -> Path:
    data = {"splits": {"meta": 40, "validation": 0.1, "test": 0.2}, "source": "digits", "max_images": 400} | data
    run(out=out, seeds=seeds, data_root=root, data=validate({"data": data}).data)
    return out


def opened(out: Path, seed: int = 0):
    return load(out / "images.npy", out / f"seed{seed}" / "manifest.parquet")


def clean(examples: Dataset | Split) -> np.ndarray:
    assert examples.clean_label is not None
    return examples.clean_label


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def folder_of_images(root: Path, counts: dict[str, int], size: int = 5) -> Path:
    """PNG files `CLASS/i.png` of noise, no two alike."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:03d}.png")
    return root


def parquet_with_two_labels(folder: Path, count: int = 90) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)

    def encoded() -> dict[str, Any]:
        stream = BytesIO()
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    clean = np.arange(count) % 3
    observed = np.where(rng.random(count) < 0.4, (clean + 1) % 3, clean)
    image = pa.array([encoded() for _ in range(count)], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": image, "label": clean, "human": observed}), folder / "train-0.parquet")
    pq.write_table(pa.table({"image": image[:30], "label": clean[:30]}), folder / "test-0.parquet")
    return folder


def test_the_files_are_those_of_the_contract(tmp_path):
    out = prepare(tmp_path / "data", seeds=(0, 7), noise=NOISY)
    assert sorted(contents(tmp_path)) == [
        "data/dataset.json",
        "data/images.npy",
        "data/seed0/manifest.json",
        "data/seed0/manifest.parquet",
        "data/seed7/manifest.json",
        "data/seed7/manifest.parquet",
    ]
    dataset = read_json(out / "dataset.json")
    assert set(dataset) == {"source", "class_names", "image_shape", "examples", "skipped", "content_hash"}
    assert (dataset["source"], dataset["image_shape"], dataset["examples"]) == ("digits", [1, 8, 8], 400)
    frame = pd.read_parquet(out / "seed0" / "manifest.parquet")
    assert list(frame.columns) == ["sample_id", "split", "label", "clean_label", "source", "row"]
    assert [frame[c].dtype for c in ("label", "clean_label", "row")] == [np.int64] * 3
    assert frame["sample_id"].is_monotonic_increasing and frame["sample_id"].is_unique
    assert np.load(out / "images.npy").shape == (400, 1, 8, 8)


def test_an_image_stands_in_the_row_that_its_id_names(tmp_path):
    from sklearn.datasets import load_digits

    dataset = opened(prepare(tmp_path / "data", noise=NOISY))
    values, labels = load_digits(return_X_y=True)
    for name in dataset.split_names:
        split = dataset.split(name)
        index = np.array([int(name.split("/")[1]) for name in split.sample_id])
        assert np.array_equal(
            np.asarray(split.images)[:, 0], np.rint(values[index].reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
        )
        assert clean(split).tolist() == labels[index].tolist()


def test_noise_is_where_it_belongs_and_nowhere_else(tmp_path):
    out = prepare(tmp_path / "clean_meta", noise=NOISY)
    wrong = {
        name: int(np.sum((s := opened(out).split(name)).label != s.clean_label)) for name in opened(out).split_names
    }
    assert wrong == {"train": 72, "meta": 0, "validation": 12, "test": 0}
    facts = read_json(out / "seed0" / "manifest.json")
    assert facts["noise"]["train"] == {"rate": 0.3, "wrong": 72}
    assert facts["counts"] == {"train": 240, "meta": 40, "validation": 40, "test": 80}
    assert sum(facts["class_counts"]["train"].values()) == 240

    noisy = opened(prepare(tmp_path / "noisy_meta", noise=NOISY, meta_set="noisy_held_out")).split("meta")
    assert np.sum(noisy.label != noisy.clean_label) == 12
    validation = opened(tmp_path / "noisy_meta").split("validation")
    assert len(validation) == len(noisy)
    assert not np.array_equal(validation.label != clean(validation), noisy.label != clean(noisy))
    training = opened(prepare(tmp_path / "training", noise=NOISY, meta_set="training"))
    assert training.split_names == ("train", "validation", "test")
    assert len(training.meta_split()) == 280


def test_without_noise_there_is_no_clean_label(tmp_path):
    out = prepare(tmp_path / "data")
    assert opened(out).clean_label is None
    assert read_json(out / "seed0" / "manifest.json")["noise"] is None


def test_seeds_share_examples_and_differ_in_splits_and_noise(tmp_path):
    out = prepare(tmp_path / "data", seeds=(0, 1), noise=NOISY)
    first, second = opened(out, 0), opened(out, 1)
    assert np.array_equal(first.sample_id, second.sample_id)
    assert np.mean(first.split_name != second.split_name) > 0.2
    assert first.content_hash != second.content_hash
    alone = prepare(tmp_path / "alone", seeds=(1,), noise=NOISY)
    assert contents(alone)["seed1/manifest.parquet"] == contents(out)["seed1/manifest.parquet"]
    assert contents(alone)["seed1/manifest.json"] == contents(out)["seed1/manifest.json"]


def test_bytes_are_the_same_from_run_to_run(tmp_path):
    first, second = (prepare(tmp_path / name, seeds=(0, 1), noise=NOISY) for name in ("a", "b"))
    assert contents(first) == contents(second)
    again = contents(prepare(first, seeds=(1,), noise=NOISY))
    assert again == {name: value for name, value in contents(second).items() if "seed0" not in name}


def test_hashes_cover_ids_labels_and_pixels(tmp_path):
    base = folder_of_images(tmp_path / "images", {"cat": 10, "dog": 10})
    options: dict[str, Any] = {"source": "image_folder", "path": "images", "root": tmp_path}
    options |= {"max_images": None, "splits": {"meta": 4, "validation": 4, "test": 4}}

    def hashes(name: str, **changes: Any) -> tuple[str, str]:
        out = prepare(tmp_path / name, **(options | changes))
        return read_json(out / "dataset.json")["content_hash"], opened(out).content_hash

    first = hashes("first")
    assert hashes("again") == first
    resized, noisy = hashes("resized", image_size=4), hashes("noisy", noise=NOISY)
    assert resized[0] != first[0] and resized[1] != first[1]
    assert noisy[0] == first[0] and noisy[1] != first[1]
    (base / "cat" / "000.png").rename(base / "cat" / "zero.png")
    renamed = hashes("renamed")
    assert renamed[0] != first[0]
    (base / "cat" / "zero.png").rename(base / "dog" / "zero.png")
    assert hashes("moved")[0] not in (first[0], renamed[0])


def test_statistics_are_of_the_train_split(tmp_path):
    dataset = opened(prepare(tmp_path / "data"))
    train = np.asarray(dataset.split("train").images) / 255.0
    assert np.allclose(dataset.channel_mean, train.mean(), atol=1e-12)
    assert np.allclose(dataset.channel_std, train.std(), atol=1e-12)


def test_planted_duplicates_are_reported(tmp_path):
    base = folder_of_images(tmp_path / "images" / "train", {"cat": 20, "dog": 20})
    folder_of_images(tmp_path / "images" / "test", {"cat": 3, "dog": 3}, size=6)
    for i in (1, 5):
        (tmp_path / "images/test/dog" / f"{i}.png").write_bytes((base / "dog" / f"{i:03d}.png").read_bytes())
    out = prepare(
        tmp_path / "data", source="image_folder", path="images", root=tmp_path, image_size=5, max_images=None,
        splits={"meta": 4, "validation": 4, "test": None},
    )  # fmt: skip
    report = read_json(out / "seed0" / "manifest.json")["overlap"]
    assert sum(entry["shared"] for pair, entry in report.items() if pair.endswith("/test")) == 2
    found = [pair for entry in report.values() for pair in entry["examples"]]
    assert sorted(found) == [["train/dog/001.png", "test/dog/1.png"], ["train/dog/005.png", "test/dog/5.png"]]
    assert report["train/meta"]["shared"] == 0


def test_observed_labels_are_learned_from_and_clean_ones_kept_apart(tmp_path):
    parquet_with_two_labels(tmp_path / "set")
    options: dict[str, Any] = {"source": "parquet", "path": "set", "root": tmp_path, "max_images": None}
    options |= {"observed_label_column": "human", "splits": {"meta": 12, "validation": 18, "test": None}}
    dataset = opened(prepare(tmp_path / "data", **options))
    for name, noisy in {"train": True, "validation": True, "meta": False, "test": False}.items():
        split = dataset.split(name)
        assert np.any(split.label != split.clean_label) == noisy
    train = dataset.split("train")
    assert clean(train).tolist() == [int(name.split("/")[1]) % 3 for name in train.sample_id]
    noisy_meta = opened(prepare(tmp_path / "noisy", **options, meta_set="noisy_held_out")).split("meta")
    assert np.any(noisy_meta.label != noisy_meta.clean_label)
    options["splits"] = {"meta": 9, "validation": 9, "test": 9}
    held_out = opened(prepare(tmp_path / "own", **options))
    test = held_out.split("test")
    assert np.array_equal(test.label, clean(test))
    assert all(name.startswith("train-0") for name in test.sample_id)


def test_splits_are_stratified_on_observed_labels_not_on_hidden_ones(tmp_path):
    parquet_with_two_labels(tmp_path / "set", count=300)
    options: dict[str, Any] = {"source": "parquet", "path": "set", "root": tmp_path, "max_images": None}
    options |= {"splits": {"meta": 30, "validation": 30, "test": 30}, "observed_label_column": "human"}
    before = opened(prepare(tmp_path / "before", **options))
    table = pq.read_table(tmp_path / "set" / "train-0.parquet")
    hidden = pa.array(np.random.default_rng(2).permutation(table["label"].to_numpy()))
    pq.write_table(table.set_column(1, "label", hidden), tmp_path / "set" / "train-0.parquet")
    after = opened(prepare(tmp_path / "after", **options))
    assert np.array_equal(before.split_name, after.split_name)
    assert not np.array_equal(clean(before), clean(after))


def test_subsets_take_the_asked_number_of_each_class_and_never_decode_the_rest(tmp_path):
    base = folder_of_images(tmp_path / "images" / "train", {"cat": 30, "dog": 30})
    folder_of_images(tmp_path / "images" / "test", {"cat": 9, "dog": 9})
    options: dict[str, Any] = {"source": "image_folder", "path": "images", "root": tmp_path, "max_images": 20}
    options |= {"max_test_images": 6, "splits": {"meta": 4, "validation": 4, "test": None}}
    dataset = opened(prepare(tmp_path / "data", **options))
    assert len(dataset.split("test")) == 6 and len(dataset) == 26
    assert np.bincount(dataset.split("test").label).tolist() == [3, 3]
    taken = set(dataset.sample_id.tolist())
    for path in base.rglob("*.png"):
        if f"train/{path.parent.name}/{path.name}" not in taken:
            path.write_bytes(b"never read")
    again = opened(prepare(tmp_path / "again", seeds=(5,), **options), seed=5)
    assert set(again.sample_id.tolist()) == taken


BAD: list[tuple[dict[str, Any], str]] = [
    ({"source": "digit"}, "data.source: unknown 'digit' (did you mean digits?)"),
    ({"source": "image_folder"}, "data.path: source 'image_folder' needs the folder to read"),
    ({"source": "cifar10"}, "data_root: source 'cifar10' needs the folder that holds the data sets"),
    ({"splits": {"test": None}}, "null means the source's own test part, but source 'digits' has none"),
    ({"splits": {"test": 380}}, "leave none of the pool of 400 for train"),
    ({"splits": {"test": 8}}, "has no example in split 'test' (8 examples of 8 classes; 40 of this class over all"),
    ({"splits": {"test": 80, "validation": 0}}, "class '0' has no example in split 'validation' (0 examples"),
    ({"noise": {"kind": "asymmetric", "rate": 0.1, "flips": {"11": "2"}}}, "flips: unknown class '11'"),
    ({"max_test_images": 10}, "data.max_test_images: expected null"),
    ({"observed_label_column": "human"}, "source 'digits' has no columns, expected null"),
]


@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, data, message):
    with pytest.raises(SamaError) as raised:
        prepare(tmp_path / "data", **data)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_noise_on_labels_that_are_noisy_already_is_refused_by_the_configuration():
    with pytest.raises(SamaError, match="does not go with observed_label_column 'human'"):
        validate({"data": {"source": "parquet", "observed_label_column": "human", "noise": NOISY}})


def test_a_corrupt_image_in_the_middle_keeps_what_stood_there_before(tmp_path):
    base = folder_of_images(tmp_path / "images", {"cat": 10, "dog": 10})
    options: dict[str, Any] = {"source": "image_folder", "path": str(base), "max_images": None}
    options |= {"splits": {"meta": 4, "validation": 4, "test": 4}}
    out = prepare(tmp_path / "results" / "data", **options)
    before = contents(tmp_path / "results")
    path = base / "dog" / "003.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SamaError, match=f"^{path}: corrupt image"):
        prepare(out, **options)
    assert contents(tmp_path / "results") == before
    assert [child.name for child in (tmp_path / "results").iterdir()] == ["data"]


def test_corrupt_images_are_skipped_counted_and_named_if_that_is_asked_for(tmp_path, capsys):
    base = folder_of_images(tmp_path / "images", {"cat": 20, "dog": 20})
    options: dict[str, Any] = {"source": "image_folder", "path": str(base), "max_images": None, "seeds": (0, 1)}
    options |= {"splits": {"meta": 4, "validation": 4, "test": 4}, "corrupt_images": "skip"}
    whole = read_json(prepare(tmp_path / "whole", **options) / "dataset.json")
    assert (whole["examples"], whole["skipped"]) == (40, [])
    broken = [base / "cat" / "000.jpg", base / "dog" / "003.png", base / "dog" / "019.png"]  # first, middle, last
    (base / "cat" / "000.png").unlink()
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(broken[0])
    for path in broken:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    capsys.readouterr()
    out = prepare(tmp_path / "data", **options)
    names = ["cat/000.jpg", "dog/003.png", "dog/019.png"]
    assert read_json(out / "dataset.json")["skipped"] == names
    assert f"3 corrupt images are left out: {', '.join(names)}" in capsys.readouterr().out
    for seed in (0, 1):
        dataset = opened(out, seed)
        assert len(dataset) == 37 and not set(names) & set(dataset.sample_id.tolist())
        for sample_id, row in zip(dataset.sample_id, dataset.rows, strict=True):
            with Image.open(base / sample_id) as image:
                assert np.array_equal(dataset.pixels[row], np.asarray(image).transpose(2, 0, 1))
    with pytest.raises(SamaError, match=f"^{broken[0]}: corrupt image"):
        prepare(tmp_path / "strict", **{**options, "corrupt_images": "error"})
    for path in base.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(SamaError, match="none of the 40 images can be decoded"):
        prepare(tmp_path / "none", **options)


def test_corrupt_rows_of_parquet_are_skipped_too(tmp_path):
    folder = parquet_with_two_labels(tmp_path / "set", count=600)
    path = folder / "train-0.parquet"
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    for row, content in ((0, b"no image"), (300, images[300]["bytes"][:40]), (301, None), (599, b"")):
        images[row]["bytes"] = content
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    pq.write_table(table.set_column(0, "image", pa.array(images, kind)), path)
    out = prepare(
        tmp_path / "data", source="parquet", path="set", root=tmp_path, max_images=None, corrupt_images="skip",
        splits={"meta": 12, "validation": 18, "test": None},
    )  # fmt: skip
    assert read_json(out / "dataset.json")["skipped"] == [f"train-0.parquet/{row:05d}" for row in (0, 300, 301, 599)]
    assert len(opened(out)) == 600 - 4 + 30


def test_images_of_every_mode_stand_in_one_folder(tmp_path):
    base = folder_of_images(tmp_path / "images", {"cat": 8, "dog": 8})
    shown = {}
    for number, mode in enumerate(("RGB", "L", "RGBA", "LA", "P", "1", "CMYK")):
        path = base / "cat" / f"{number:03d}.png"
        with Image.open(path) as image:
            changed = image.convert(mode)
        path.unlink()
        changed.save(path.with_suffix(".tif"))
        shown[f"cat/{number:03d}.tif"] = changed.convert("RGBA").convert("RGB")
    options: dict[str, Any] = {"source": "image_folder", "path": str(base), "max_images": None}
    options |= {"splits": {"meta": 2, "validation": 2, "test": 2}}
    colour = opened(prepare(tmp_path / "colour", **options))
    rows = dict(zip(colour.sample_id.tolist(), colour.rows.tolist(), strict=True))
    for sample_id, image in shown.items():
        assert np.array_equal(colour.pixels[rows[sample_id]], np.asarray(image).transpose(2, 0, 1)), sample_id
    grey = opened(prepare(tmp_path / "grey", **options, channels=1))
    assert (colour.image_shape, grey.image_shape) == ((3, 5, 5), (1, 5, 5))


def test_the_same_image_in_two_rows_of_parquet_has_two_ids_and_is_reported(tmp_path):
    folder = parquet_with_two_labels(tmp_path / "set", count=90)
    table = pq.read_table(folder / "train-0.parquet")
    pq.write_table(pa.concat_tables([table, table]), folder / "train-0.parquet")
    out = prepare(
        tmp_path / "data", source="parquet", path="set", root=tmp_path, max_images=None,
        splits={"meta": 60, "validation": 18, "test": None},
    )  # fmt: skip
    assert len(set(opened(out).sample_id.tolist())) == 180 + 30
    assert read_json(out / "seed0" / "manifest.json")["overlap"]["train/meta"]["shared"] > 0


def test_noise_that_empties_a_class_is_named(tmp_path):
    base = folder_of_images(tmp_path / "images", {"cat": 10, "dog": 10})
    noise = {"kind": "asymmetric", "rate": 0.5, "flips": {"cat": "dog"}}
    with pytest.raises(SamaError, match=r"class 'cat' has no example in split 'train' \(12 examples of 1 classes"):
        prepare(
            tmp_path / "data", source="image_folder", path=str(base), max_images=None, noise=noise,
            splits={"meta": 4, "validation": 2, "test": 2},
        )  # fmt: skip


def test_what_a_killed_run_left_is_cleared(tmp_path):
    left = tmp_path / ".data.partial" / "seed0"
    left.mkdir(parents=True)
    (left / ".manifest.parquet.x1").write_bytes(b"half")
    out = prepare(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert sorted(path.name for path in (out / "seed0").iterdir()) == ["manifest.json", "manifest.parquet"]


def test_a_class_that_only_noise_would_bring_into_a_split_is_named(tmp_path):
    base = folder_of_images(tmp_path / "images", {"cat": 30, "dog": 2})
    with pytest.raises(SamaError, match=r"class 'dog' has no example in split 'validation' \(2 examples of 1 classes"):
        prepare(
            tmp_path / "data", source="image_folder", path=str(base), max_images=None, meta_set="training",
            noise={"kind": "asymmetric", "rate": 0.5}, splits={"validation": 2, "test": 16},
        )  # fmt: skip


def test_a_source_that_gives_an_id_twice_is_refused(tmp_path, monkeypatch):
    source = open_source(SourceOptions("digits"))
    twice = source.train.sample_id.copy()
    twice[1] = twice[0]
    broken = replace(source, train=replace(source.train, sample_id=twice))
    monkeypatch.setattr("sama.stages.prepare.open_source", lambda options: broken)
    with pytest.raises(SamaError, match="source 'digits': expected unique sample ids, got 'digits/00000' twice"):
        prepare(tmp_path / "data", max_images=None)
