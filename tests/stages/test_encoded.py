"""Images that stay encoded: the same pixels and models as decoded ones, from every source, by any number of workers."""

import json
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sama.bilevel import checkpoint
from sama.config import RuntimeConfig, validate
from sama.data import manifest as manifests
from sama.data.encoded import EncodedImages, Locations, crop_box, in_order, open_index
from sama.data.sources import SourceOptions, open_source
from sama.errors import SamaError
from sama.files import read_json
from sama.stages import meta_train, prepare, retrain, score

SIZE = 8
CLASSES = ("cat", "dog")
LABELS = [i % 2 for i in range(60)]
SPLITS = {"meta": 8, "validation": 8, "test": 12}
RECIPE = {"batch_size": 8, "steps": 5, "checkpoint_every": 2, "log_every": 5}
CROPPED = {**RECIPE, "augment": {"random_resized_crop": [0.2, 1.0], "horizontal_flip": True}}


def jpeg(number: int, size: tuple[int, int] = (12, 9), mode: str = "RGB") -> bytes:
    stream = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, "PNG" if mode == "RGBA" else "JPEG")
    return stream.getvalue()


IMAGES = [jpeg(i, mode={3: "L", 4: "RGBA"}.get(i, "RGB")) for i in range(60)]


def folder_source(root: Path) -> dict[str, Any]:
    for i, (content, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = root / "set" / CLASSES[label] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return {"source": "image_folder", "path": "set"}


def parquet_source(root: Path) -> dict[str, Any]:
    (root / "set").mkdir()
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    image = pa.array([{"bytes": content, "path": None} for content in IMAGES], kind)
    pq.write_table(pa.table({"image": image, "label": LABELS}), root / "set" / "train-0.parquet")
    (root / "set" / "class_names.txt").write_text("cat\ndog\n")
    return {"source": "parquet", "path": "set"}


def shard(path: Path, members: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))


def webdataset_source(root: Path) -> dict[str, Any]:
    samples = [
        [(f"{i:02d}.JPG", content), (f"{i:02d}.cls", str(label).encode())]
        for i, (content, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    shard(root / "set" / "a-000.tar", [file for sample in samples[:25] for file in sample])
    shard(root / "set" / "a-001.tar", [file for sample in samples[25:] for file in sample])
    (root / "set" / "class_names.txt").write_text("cat\ndog\n")
    return {"source": "webdataset", "path": "set"}


SOURCES = {"image_folder": folder_source, "parquet": parquet_source, "webdataset": webdataset_source}


def prepared(root: Path, name: str = "data", seeds: tuple[int, ...] = (0,), **data: Any) -> Path:
    settings = {"image_size": SIZE, "splits": SPLITS, "storage": "encoded"} | data
    prepare.run(out=root / name, seeds=seeds, data_root=root, data=validate({"data": settings}).data)
    return root / name


def images_of(out: Path) -> Path:
    return next(path for path in (out / "images.parquet", out / "images.npy") if path.is_file())


def opened(out: Path, workers: int = 2) -> manifests.Dataset:
    manifest = out / "seed0" / "manifest.parquet"
    return manifests.load(images_of(out), manifest, data_root=out.parent, workers=workers)


LEARNERS = {"retrain": "model.safetensors", "meta_train": "weights.parquet", "score": "score.parquet"}


def learned(stage: str, out: Path, folder: Path, workers: int, **settings: Any) -> bytes:
    """What a stage that learns writes first."""
    config = validate({"data": {"source": "image_folder", "storage": "encoded", "image_size": SIZE}, **settings})
    common: dict[str, Any] = {
        "images": images_of(out), "manifest": out / "seed0" / "manifest.parquet", "data_root": out.parent, "seed": 0,
        "model": config.model, "runtime": RuntimeConfig(device="cpu", workers=workers), "work": folder / "work",
    }  # fmt: skip
    path = folder / LEARNERS[stage]
    if stage == "retrain":
        retrain.run(**common, cell="full", out=folder, training=config.training, retrain=config.retrain)
    elif stage == "meta_train":
        meta_train.run(**common, out=folder, meta=config.meta)
    else:
        score.run(
            **common, out=path, summary=folder / "score.json", method="el2n", training=config.training,
            scores=config.scores,
        )  # fmt: skip
        return pq.read_table(path).column("score").to_numpy().tobytes()  # its metadata names the data's hash
    return path.read_bytes()


def trained(out: Path, folder: Path, workers: int, **settings: Any) -> dict[str, bytes]:
    return {stage: learned(stage, out, folder / stage, workers, **settings) for stage in LEARNERS}


def recipe(training: dict[str, Any]) -> dict[str, Any]:
    meta = {"training": {**training, "steps": 16}, "batch_size": 4}
    return {"training": training, "meta": meta, "scores": {"el2n": {"models": 1, "steps": 5}}}


@pytest.mark.parametrize("source", list(SOURCES))
def test_encoded_and_decoded_images_have_the_same_pixels_and_manifests(source, tmp_path):
    data = SOURCES[source](tmp_path)
    encoded, decoded = prepared(tmp_path, **data), prepared(tmp_path, "decoded", **data, storage="decoded")
    one, two = opened(encoded), opened(decoded)
    assert isinstance(one.pixels, EncodedImages) and one.image_shape == two.image_shape == (3, SIZE, SIZE)
    assert one.sample_id.tolist() == two.sample_id.tolist() and one.label.tolist() == two.label.tolist()
    assert one.split_name.tolist() == two.split_name.tolist() and one.class_names == two.class_names
    for name in one.split_names:
        assert np.array_equal(np.asarray(one.split(name).images), two.split(name).images)
    assert (one.channel_mean, one.channel_std) == (two.channel_mean, two.channel_std)
    facts = [read_json(out / "seed0" / "manifest.json") for out in (encoded, decoded)]
    assert facts[0]["overlap"] == facts[1]["overlap"] and facts[0]["class_counts"] == facts[1]["class_counts"]
    copied = (encoded / "images.bin").is_file()
    assert copied == (source == "parquet") and not (encoded / "images.npy").exists()


def test_training_does_not_depend_on_storage_or_workers(tmp_path):
    data = folder_source(tmp_path)
    encoded, decoded = prepared(tmp_path, **data), prepared(tmp_path, "decoded", **data, storage="decoded")
    held = trained(decoded, tmp_path / "a", 1, **recipe(RECIPE))
    assert held == trained(encoded, tmp_path / "b", 1, **recipe(RECIPE))
    assert held == trained(encoded, tmp_path / "c", 3, **recipe(RECIPE))
    one, many = (trained(encoded, tmp_path / f"crop{n}", n, **recipe(CROPPED)) for n in (1, 3))
    assert one == many
    assert all(one[name] != held[name] for name in held)


class Killed(BaseException):
    """What stands for `kill -9` here."""


@pytest.mark.parametrize(("stage", "kills"), [("retrain", 1), ("meta_train", 5), ("score", 3)])
def test_killed_at_every_checkpoint_it_goes_on_with_the_batches_that_were_begun(tmp_path, monkeypatch, stage, kills):
    out, settings = prepared(tmp_path, **folder_source(tmp_path)), recipe({**CROPPED, "checkpoint_every": 3})
    calm = learned(stage, out, tmp_path / "calm", 2, **settings)
    save = checkpoint.save

    def save_and_die(*arguments):
        save(*arguments)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in range(kills):  # of a score: in the training, after it, after the pass
        with pytest.raises(Killed):
            learned(stage, out, tmp_path / "killed", 2, **settings)
    assert learned(stage, out, tmp_path / "killed", 2, **settings) == calm


def test_random_crops_are_of_the_size_and_place_that_is_asked_for():
    assert crop_box(40, 20, 0.25, 1.0, 0.0, 0.0) == pytest.approx((0, 0, 200**0.5, 200**0.5))
    assert crop_box(40, 20, 0.5, 2.0, 0.5, 0.25) == pytest.approx((2.9289, 2.9289, 31.2132, 17.0711), abs=1e-3)
    assert crop_box(40, 20, 1.0, 1.0, 0.9, 0.5) == pytest.approx((5.8579, 0, 34.1421, 20), abs=1e-3)  # cut to the image


def test_a_crop_is_taken_of_the_whole_image_not_of_its_central_square(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 28:] = 200
    (tmp_path / "set").mkdir()
    Image.fromarray(wide).save(tmp_path / "set" / "0.png")
    locations = pa.array(["set/0.png"]), np.zeros(1, np.int64), np.full(1, -1)
    images = EncodedImages(tmp_path, Locations(*locations), 3, 4, 1)
    assert images[0].max() == 0  # the central square
    right = np.array([[0.2, 1.0, 0.5, 1.0]])
    assert images.begin(np.array([0]), right)().min() == 200


def test_a_truncated_image_among_many_is_an_error_or_a_counted_skip(tmp_path, capsys):
    data = folder_source(tmp_path)
    broken = tmp_path / "set" / "dog" / "31.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(SamaError, match=f"^{broken}: corrupt image"):
        prepared(tmp_path, **data)
    assert not (tmp_path / "data").exists()
    out = prepared(tmp_path, **data, corrupt_images="skip")
    assert read_json(out / "dataset.json")["skipped"] == ["dog/31.jpg"]
    told = capsys.readouterr()
    assert "1 corrupt images are left out: dog/31.jpg" in told.out and "check images: step 60/60 (100 %)" in told.err
    dataset = opened(out)
    assert len(dataset) == 59 and "dog/31.jpg" not in dataset.sample_id
    for sample_id, row in zip(dataset.sample_id, dataset.rows, strict=True):
        assert isinstance(dataset.pixels, EncodedImages)
        assert dataset.pixels.locations.file[int(row)].as_py() == sample_id
    whole, cut = jpeg(31), broken.read_bytes()
    broken.write_bytes(whole)
    unchecked = prepared(tmp_path, "unchecked", **data, check_images=False)
    broken.write_bytes(cut)
    assert read_json(unchecked / "seed0" / "manifest.json")["overlap"] == {}
    images = opened(unchecked).pixels
    assert isinstance(images, EncodedImages)
    with pytest.raises(SamaError, match=f"^{broken}: corrupt image"):
        np.asarray(images)


def test_what_vanishes_or_is_cut_after_prepare_is_named(tmp_path):
    out = prepared(tmp_path, **webdataset_source(tmp_path))
    path = tmp_path / "set" / "a-001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(SamaError, match=rf"{path}: expected \d+ bytes from \d+ on, got \d+"):
        np.asarray(opened(out).pixels)
    path.unlink()
    with pytest.raises(SamaError, match=f"{path}: cannot be read \\(No such file or directory\\)"):
        np.asarray(opened(out).pixels)


def test_the_folder_of_the_images_is_found_below_the_data_root_alone(tmp_path):
    out = prepared(tmp_path, **folder_source(tmp_path))
    index = out / "images.parquet"
    with pytest.raises(SamaError, match=r"data_root: the images of .* stand in 'set' below it, got null"):
        open_index(index, None, 1)
    with pytest.raises(SamaError, match=f"{tmp_path / 'elsewhere' / 'set'}: no such folder"):
        open_index(index, tmp_path / "elsewhere", 1)
    with pytest.raises(SamaError, match="not an index of images"):
        open_index(out / "seed0" / "manifest.parquet", tmp_path, 1)
    (tmp_path / "moved").mkdir()
    (tmp_path / "set").rename(tmp_path / "moved" / "set")
    assert len(open_index(index, tmp_path / "moved", 1)[np.arange(3)]) == 3


def test_changed_content_changes_the_hash_and_another_storage_replaces_the_first(tmp_path):
    data = folder_source(tmp_path)
    first = opened(prepared(tmp_path, **data)).content_hash
    assert first == opened(prepared(tmp_path, "again", **data)).content_hash
    (tmp_path / "set" / "cat" / "00.jpg").write_bytes(jpeg(99))
    out = prepared(tmp_path, **data)
    assert opened(out).content_hash != first
    prepared(tmp_path, **data, storage="decoded")
    assert not (out / "images.parquet").exists() and (out / "images.npy").is_file()


def test_results_in_order_and_errors_in_their_place():
    assert list(in_order(lambda n: n * n, range(500), 3)) == [n * n for n in range(500)]
    seen = []
    with pytest.raises(ZeroDivisionError):
        for value in in_order(lambda n: 1 / (3 - n), range(200), 2):
            seen.append(value)
    assert seen == [1 / 3, 1 / 2, 1.0]


def test_webdataset_parts_fields_and_labels(tmp_path):
    def sample(key: str, **fields: Any) -> list[tuple[str, bytes]]:
        named = {"jpg": IMAGES[0], "json": json.dumps(fields).encode()}
        return [(f"./{key}.{extension}", content) for extension, content in named.items()]

    base = tmp_path / "set"
    shard(base / "my-train-0.tar", sample("a/x.y", label=1, human=0) + sample("a/z", label=0, human=2))
    shard(base / "my-val-0.tar", sample("q", label=1))
    options = {"name": "webdataset", "root": tmp_path, "path": "set"}
    source = open_source(SourceOptions(**options, observed_label_column="human"))
    assert source.train.sample_id.tolist() == ["train/a/x", "train/a/z"] and source.class_names == ("0", "1", "2")
    assert source.train.label.tolist() == [0, 2] and source.train.clean_label is not None
    assert source.train.clean_label.tolist() == [1, 0] and source.train.origin.tolist() == ["my-train-0.tar"] * 2
    assert source.test is not None and source.test.sample_id.tolist() == ["test/q"]
    assert source.test.label.tolist() == [1] and source.test.clean_label is None

    def error(members: list[tuple[str, bytes]], name: str = "my-train-0.tar", **more: Any) -> str:
        shard(base / name, members)
        with pytest.raises(SamaError) as raised:
            open_source(SourceOptions(**options, **more))
        return str(raised.value)

    shard(base / "my-train-0.tar", sample("k", label=4, human=0))
    assert open_source(SourceOptions(**options, observed_label_column="human")).class_names == tuple("01234")

    place = f"{base / 'my-train-0.tar'}: k"
    assert error([("k.cls", b"1")]) == f"{place}: expected one image, got 0"
    assert error([("k.jpg", b""), ("k.png", b"")]) == f"{place}: expected one image, got 2"
    assert error([("k.jpg", b"")]) == f"{place}: expected a class index 'label' in its json or in cls, got None"
    assert error([("k.jpg", b""), ("k.cls", b"cat")]) == f"{place}.cls: expected a class index, got b'cat'"
    assert "k.json: expected a JSON object, got b'[1]'" in error([("k.jpg", b""), ("k.json", b"[1]")])
    assert "expected a class index 'kind' in its json, got 'x'" in error(
        [("k.jpg", b""), ("k.json", b'{"kind": "x"}')], label_column="kind"
    )
    assert "key k stands in my-train-0.tar and in my-train-0.tar" in error(
        [("k.jpg", b""), ("k.cls", b"1"), ("l.jpg", b""), ("l.cls", b"1"), ("k.jpg", b""), ("k.cls", b"0")]
    )
    (base / "class_names.txt").write_text("cat\ndog\n")
    assert f"{place}: label 2 is outside the 2 classes 0..1" in error([("k.jpg", b""), ("k.cls", b"2")])
    (base / "my-train-0.tar").write_bytes((base / "my-val-0.tar").read_bytes()[:700])
    with pytest.raises(SamaError, match=f"{base / 'my-train-0.tar'}: not a whole tar file"):
        open_source(SourceOptions(**options))
    (base / "my-train-0.tar").unlink()
    with pytest.raises(SamaError, match=r"expected shards of a training part \(train-\*\.tar\), got my-val-0\.tar"):
        open_source(SourceOptions(**options))
    (base / "my-val-0.tar").unlink()
    with pytest.raises(SamaError, match=f"{base}: expected shards \\*.tar, found none"):
        open_source(SourceOptions(**options))


def test_which_shards_are_which_part_and_whose_label_counts(tmp_path):
    base = tmp_path / "set"

    def opened_with(*names: str) -> list[tuple[str, int]]:
        for path in base.glob("*.tar"):
            path.unlink()
        for label, name in enumerate(names):
            shard(base / name, [(f"{label}.jpg", IMAGES[0]), (f"{label}.cls", str(label).encode())])
        source = open_source(SourceOptions("webdataset", tmp_path, "set"))
        parts = [part for part in (source.train, source.test) if part is not None]
        return [(str(i), int(label)) for part in parts for i, label in zip(part.sample_id, part.label, strict=True)]

    assert opened_with("a-train-0.tar", "a-val-0.tar", "a-test-0.tar") == [("train/0", 0), ("test/2", 2)]
    assert opened_with("a-1.tar", "a-0.tar", "A-Validation-0.tar") == [
        ("train/1", 1), ("train/0", 0), ("test/2", 2)
    ]  # fmt: skip
    assert opened_with("a-train-0.tar", "a-extra-0.tar") == [("train/0", 0)]
    with pytest.raises(SamaError, match=r"b-val-train-0\.tar: expected train or val in the name of a shard, got both"):
        opened_with("a-train-0.tar", "b-val-train-0.tar")
    members = [
        ("d/", b""), ("README", b"no field"), ("d/.jpg", b"no key"), ("d/k.v2.PNG", IMAGES[1]), ("d/k.cls", b"1"),
        ("d/k.json", b'{"label": 0, "kind": true}'), ("e/k.jpg", IMAGES[2]), ("e/k.cls", b"1"),
    ]  # fmt: skip
    for path in base.glob("*.tar"):
        path.unlink()
    shard(base / "0.tar", members)
    part = open_source(SourceOptions("webdataset", tmp_path, "set")).train
    assert part.sample_id.tolist() == ["train/d/k", "train/e/k"] and part.label.tolist() == [0, 1]
    assert [picture.encoded() for picture in part.read(np.arange(2))] == IMAGES[1:3]
    for name, place in (("kind", "d/k: expected a class index 'kind' in its json, got True"), ("none", "got None")):
        with pytest.raises(SamaError, match=place):
            open_source(SourceOptions("webdataset", tmp_path, "set", label_column=name))
    shard(base / "0.tar", [("k.jpg", IMAGES[0]), ("k.cls", b"-1")])
    with pytest.raises(SamaError, match="k: label -1 is outside the 1 classes"):
        open_source(SourceOptions("webdataset", tmp_path, "set"))


def test_a_clean_label_outside_the_classes_is_named_too(tmp_path):
    fields = json.dumps({"label": 5, "human": 0}).encode()
    shard(tmp_path / "set" / "0.tar", [("k.jpg", IMAGES[0]), ("k.json", fields)])
    (tmp_path / "set" / "class_names.txt").write_text("cat\ndog\n")
    with pytest.raises(SamaError, match="k: label 5 is outside the 2 classes"):
        open_source(SourceOptions("webdataset", tmp_path, "set", observed_label_column="human"))


def test_a_shard_that_ends_early_or_has_a_damaged_header_is_no_shorter_shard(tmp_path):
    options = SourceOptions("webdataset", tmp_path, webdataset_source(tmp_path)["path"])
    path = tmp_path / "set" / "a-000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        at = archive.getmembers()[10].offset
    for content in (whole[:at], whole[: at + 148] + b"damaged!" + whole[at + 156 :]):
        path.write_bytes(content)
        with pytest.raises(SamaError, match=f"{path}: not a whole tar file .neither a file nor the end .* byte {at}"):
            open_source(options)
    path.write_bytes(whole)
    assert len(open_source(options).train) == 60


def test_no_sample_and_labels_that_are_no_class_indices_are_named(tmp_path):
    options = SourceOptions("webdataset", tmp_path, "set")
    shard(tmp_path / "set" / "train-0.tar", [])
    with pytest.raises(SamaError, match=r"set: expected samples of an image and its label in train-0.tar, …, found no"):
        open_source(options)
    for label in (10**9, -(10**30)):
        shard(tmp_path / "set" / "train-0.tar", [("k.jpg", IMAGES[0]), ("k.cls", str(label).encode())])
        with pytest.raises(SamaError, match=rf"train-0.tar: k: expected a class index .*, got {label}$"):
            open_source(options)
    (tmp_path / "parquet").mkdir()
    path = tmp_path / "parquet" / parquet_source(tmp_path / "parquet")["path"]
    (path / "class_names.txt").unlink()
    table = pq.read_table(path / "train-0.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([10**9] * 60)), path / "train-0.parquet")
    with pytest.raises(SamaError, match=rf"{path}: label 1000000000: expected class indices 0, 1, … below 1000000"):
        open_source(SourceOptions("parquet", path.parent, path.name))


def test_pixels_without_a_fixed_range_are_found_by_prepare_wherever_they_go(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "STATISTICS_IMAGES", 1)
    data = folder_source(tmp_path)
    path = tmp_path / "set" / "cat" / "00.tif"
    Image.fromarray(np.arange(100, dtype=np.int32).reshape(10, 10)).save(path)
    with pytest.raises(SamaError, match=f"{path}: expected 8-bit or 16-bit pixels, got 32-bit ones"):
        prepared(tmp_path, **data)
    for storage in ("encoded", "decoded"):
        skipped = prepared(tmp_path, storage, **data, storage=storage, corrupt_images="skip")
        assert read_json(skipped / "dataset.json")["skipped"] == ["cat/00.tif"]


def test_the_data_root_itself_may_be_the_folder_of_the_images(tmp_path):
    folder_source(tmp_path)
    settings = {"source": "image_folder", "path": "", "image_size": SIZE, "splits": SPLITS, "storage": "encoded"}
    out = tmp_path / "data"
    prepare.run(out=out, seeds=(0,), data_root=tmp_path / "set", data=validate({"data": settings}).data)
    assert len(open_index(out / "images.parquet", tmp_path / "set", 1)[np.arange(60)]) == 60


def test_a_line_break_in_a_name_is_refused_before_it_becomes_two_ids(tmp_path):
    data = folder_source(tmp_path)
    (tmp_path / "set" / "cat" / "a\nb.jpg").write_bytes(IMAGES[0])
    with pytest.raises(SamaError, match=r"'image_folder': expected sample ids without line breaks, got 'cat/a\\nb"):
        prepared(tmp_path, **data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"source": "digits", "storage": "encoded", "image_size": 8}, "source 'digits' has no encoded images"),
        ({"source": "parquet", "storage": "encoded"}, "expected an image_size that images are brought to, got null"),
        ({"check_images": False}, "check_images false is for storage encoded"),
        (
            {
                "source": "parquet",
                "storage": "encoded",
                "image_size": 8,
                "check_images": False,
                "corrupt_images": "skip",
            },
            "corrupt images are only found where check_images is true",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named(data, words):
    with pytest.raises(SamaError, match=words):
        validate({"data": data})


def test_random_resized_crops_are_of_encoded_images():
    augment = {"random_resized_crop": [0.1, 1.0]}
    with pytest.raises(SamaError, match=r"training.augment.random_resized_crop needs data.storage encoded"):
        validate({"training": {"augment": augment}})
    with pytest.raises(SamaError, match=r"meta.training.augment.random_resized_crop needs data.storage encoded"):
        validate({"meta": {"training": {"augment": augment}}})
    with pytest.raises(SamaError, match="does not go with crop_padding"):
        validate({"training": {"augment": {**augment, "crop_padding": 2}}})
    with pytest.raises(SamaError, match="expected the smaller area first"):
        validate({"training": {"augment": {"random_resized_crop": [0.5, 0.1]}}})
