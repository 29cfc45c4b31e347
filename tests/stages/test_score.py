"""Scores are the same to the last bit after an interruption, with several processes, in another order of the data."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from sama.bilevel import checkpoint
from sama.config import Config, dump_yaml, validate
from sama.data import manifest as manifests
from sama.files import read_json
from sama.images import ImageExamples
from sama.networks.encoder import load_encoder
from sama.observation import gradient_norms
from sama.scores import SCORES
from sama.stages import _passes, prepare, score, select
from tests.bilevel import processes
from tests.scores.contexts import context
from tests.stages.small_digits import DATA

TRAIN = 80  # examples of the training split: five chunks of sixteen, or two and a half of 32
CONFIG = {
    "data": DATA,
    "model": {"drop_rate": 0.3},
    "training": {"steps": 12, "batch_size": 16, "checkpoint_every": 2, "augment": {"crop_padding": 1}},
    "scores": {"el2n": {"models": 3, "steps": 5}, "grand": {"models": 1, "steps": 2}},
    "runtime": {"device": "cpu", "threads": 1},
}
METHODS = ("el2n", "grand", "prototype", "random")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared data, and the weights of an encoder beside them."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare.run(out=folder, seeds=(0,), data_root=None, data=validate(CONFIG).data)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=4).state_dict(), folder / "encoder.safetensors")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of several chunks, kept in several parts."""
    make_small(monkeypatch.setattr)


def make_small(setattr_of: Any) -> None:
    setattr_of(score, "BATCH", 16)
    setattr_of(gradient_norms, "CHUNK", 16)
    setattr_of(_passes, "SAVE_EVERY", 32)


def config(data: Path, **changes: Any) -> Config:
    encoder = {"encoder": "test_vit", "encoder_weights": str(data / "encoder.safetensors")}
    return validate({**CONFIG, "scores": {**CONFIG["scores"], "prototype": encoder, **changes}})


def scored(data: Path, out: Path, method: str, source: Path | None = None, **changes: Any) -> bytes:
    """The score and its summary as bytes; the work is kept in `out` + .work."""
    chosen, source = config(data, **changes), source or data
    score.run(
        images=source / "images.npy", manifest=source / "seed0" / "manifest.parquet", method=method,
        out=out.with_suffix(".parquet"), summary=out.with_suffix(".json"), work=out.with_suffix(".work"), seed=0,
        model=chosen.model, training=chosen.training, scores=chosen.scores, runtime=chosen.runtime,
    )  # fmt: skip
    if not out.with_suffix(".parquet").exists():
        return b""
    return out.with_suffix(".parquet").read_bytes() + out.with_suffix(".json").read_bytes()


class Killed(BaseException):
    """What stands for `kill -9` here."""


@pytest.mark.parametrize("method", ["el2n", "grand", "prototype"])
def test_killed_after_each_file_it_goes_on_from_there_to_the_same_bytes(data, tmp_path, monkeypatch, method):
    save, count, seen = checkpoint.save, [], []
    begin = ImageExamples.begin

    def counted(self, indices, *arguments, **options):
        seen.append(len(indices))
        return begin(self, indices, *arguments, **options)

    monkeypatch.setattr(ImageExamples, "begin", counted)
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: (save(*arguments), count.append(1)))
    calm, whole = scored(data, tmp_path / "calm", method), len(seen)
    seen.clear()

    def save_and_die(*arguments):
        save(*arguments)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in count:
        with pytest.raises(Killed):
            scored(data, tmp_path / "killed", method)
        torch.manual_seed(4711)  # what the next process starts with
        assert len(list((tmp_path / "killed.work").glob("*_training_*"))) <= 1  # a model goes when its pass is done
    assert list((tmp_path / "killed.work").iterdir())
    read = len(seen)
    assert scored(data, tmp_path / "killed", method) == calm
    assert len(seen) == read  # all that was to read had been read
    assert read <= whole + 2 * ImageExamples.ahead * len(count)  # nothing twice but what was begun early
    assert not (tmp_path / "killed.work").exists()
    # a model: the training twice, the trained model, the pass in three parts
    assert len(count) == {"el2n": 3 * (2 + 1 + 3), "grand": 1 + 3, "prototype": 3}[method]


@pytest.mark.parametrize("moment", [1, 3, 5, 8])
def test_killed_before_a_file_is_written_ends_in_the_same_bytes(data, tmp_path, monkeypatch, moment):
    calm, save, count = scored(data, tmp_path / "calm", "el2n"), checkpoint.save, []

    def die_or_save(*arguments):
        count.append(1)
        if len(count) == moment:
            raise Killed
        save(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", die_or_save)
        scored(data, tmp_path / "killed", "el2n")
    assert scored(data, tmp_path / "killed", "el2n") == calm


def test_what_another_run_left_is_not_taken_over(data, tmp_path, monkeypatch):
    calm = scored(data, tmp_path / "calm", "el2n", el2n={"models": 3, "steps": 4})
    save, count = checkpoint.save, []

    def save_and_die(*arguments):
        save(*arguments)
        count.append(1)
        if len(count) == 7:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", save_and_die)
        scored(data, tmp_path / "other", "el2n")
    mine, half = tmp_path / "other.work" / "mine.pt", tmp_path / "other.work" / ".el2n_model0_part0_0of1.pt.x1y2"
    for path in (mine, half):
        path.write_bytes(b"?")
    assert scored(data, tmp_path / "other", "el2n", el2n={"models": 3, "steps": 4}) == calm
    assert list((tmp_path / "other.work").iterdir()) == [mine]  # all of ours is gone, and nothing else


def in_a_process(data: Path, folder: Path) -> list[tuple[list[int], bool]]:
    """What this process read of the examples in each pass, and whether it wrote."""
    torch.set_num_threads(1)
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
    make_small(setattr)
    told, batches = [], ImageExamples.batches

    def watched(self, *arguments, **options):
        for indices, inputs in batches(self, *arguments, **options):
            told[-1][0].extend(indices.tolist())
            yield indices, inputs

    ImageExamples.batches = watched
    for method in METHODS:
        told.append(([], False))
        own = folder / f"{rank}"
        own.mkdir(exist_ok=True)
        told[-1] = (told[-1][0], bool(scored(data, own / method, method)))
        torch.distributed.barrier()
    return told


def test_two_processes_give_the_same_bytes_as_one_and_the_first_writes(data, tmp_path):
    calm = {method: scored(data, tmp_path / method, method) for method in METHODS}
    (tmp_path / "both").mkdir()
    told = processes.run(2, in_a_process, tmp_path / "both", data, tmp_path / "both")
    for number, method in enumerate(METHODS):
        path = tmp_path / "both" / "0" / method
        both = path.with_suffix(".parquet").read_bytes() + path.with_suffix(".json").read_bytes()
        assert both == calm[method], method
        assert [wrote for _, wrote in (told[0][number], told[1][number])] == [True, False]
    everyone = list(range(TRAIN))
    for number, method in enumerate(METHODS[:3]):
        first, second = told[0][number][0], told[1][number][0]
        models = 3 if method == "el2n" else 1
        assert sorted(first + second) == sorted(models * everyone), method  # each once a model, nothing is padded
        assert len(first) - len(second) in (0, 16)
    assert told[0][3][0] == told[1][3][0] == []
    kept = [kept_of(data, path, tmp_path / "kept") for path in (tmp_path / "el2n", tmp_path / "both" / "0" / "el2n")]
    assert kept[0] == kept[1]


def kept_of(data: Path, scores: Path, out: Path) -> bytes:
    select.run(
        scores=scores.with_suffix(".parquet"), manifest=data / "seed0" / "manifest.parquet", ratio=0.3, out=out,
        selection=validate(CONFIG).selection,
    )  # fmt: skip
    return out.read_bytes()


def test_the_order_of_the_manifest_and_of_the_images_changes_nothing(data, tmp_path):
    (tmp_path / "seed0").mkdir()
    frame, pixels = pd.read_parquet(data / "seed0" / "manifest.parquet"), np.load(data / "images.npy")
    rng = np.random.default_rng(5)
    places = rng.permutation(len(pixels))
    np.save(tmp_path / "images.npy", pixels[places])
    turned = frame.assign(row=np.argsort(places)[frame["row"]]).sample(frac=1, random_state=5)
    turned.to_parquet(tmp_path / "seed0" / "manifest.parquet", index=False)
    (tmp_path / "seed0" / "manifest.json").write_bytes((data / "seed0" / "manifest.json").read_bytes())
    for method in METHODS:
        assert scored(data, tmp_path / "one", method) == scored(data, tmp_path / "two", method, tmp_path), method


def test_neither_decoding_threads_nor_the_size_of_a_chunk_change_a_score(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / "abcd"[number % 4] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    folder = {"source": "image_folder", "path": str(tmp_path / "photos"), "storage": "encoded", "image_size": 12}
    chosen = validate({**CONFIG, "data": {**folder, "splits": {"meta": 4, "validation": 4, "test": 8}}})
    prepare.run(out=tmp_path, seeds=(0,), data_root=None, data=chosen.data)
    for method in ("el2n", "grand"):
        made = {}
        for workers, chunk in ((1, 16), (3, 16), (3, 5)):
            monkeypatch.setattr(score, "BATCH", chunk)
            monkeypatch.setattr(gradient_norms, "CHUNK", chunk)
            out = tmp_path / f"{method}{workers}{chunk}.parquet"
            score.run(
                images=tmp_path / "images.parquet", manifest=tmp_path / "seed0" / "manifest.parquet", method=method,
                out=out, summary=out.with_suffix(".json"), work=tmp_path / "work", seed=0, model=chosen.model,
                training=chosen.training, scores=chosen.scores,
                runtime=chosen.runtime.model_copy(update={"workers": workers}),
            )  # fmt: skip
            made[workers, chunk] = out
        assert made[1, 16].read_bytes() == made[3, 16].read_bytes()
        values = [pd.read_parquet(made[key])["score"] for key in ((3, 16), (3, 5))]
        np.testing.assert_allclose(*values, rtol=1e-5)


def test_an_encoder_costs_a_pass_and_is_what_is_clustered(data, tmp_path):
    file = tmp_path / "encoder.safetensors"
    file.write_bytes((data / "encoder.safetensors").read_bytes())
    encoder = {"encoder": "test_vit", "encoder_weights": str(file)}
    scored(data, tmp_path / "s", "prototype", prototype=encoder)
    made = read_json(tmp_path / "s.json")
    assert made["cost"] == {"forward_examples": TRAIN, "backward_examples": 0}
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    split = dataset.split("train")
    with torch.no_grad():
        features = load_encoder("test_vit", file)(torch.from_numpy(np.asarray(split.images)) / 255).numpy()
    given, _ = context(labels=split.label, features=features, sample_ids=split.sample_id)
    expected = SCORES["prototype"].compute(given, clusters=None, encoder=None, encoder_weights=None)
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "s.parquet")["score"], expected, rtol=1e-4, atol=1e-6)
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit", num_classes=4).state_dict(), file)  # other weights of the same name
    scored(data, tmp_path / "t", "prototype", prototype=encoder)
    assert read_json(tmp_path / "t.json")["content_hash"] != made["content_hash"]
    one, two = (pd.read_parquet(tmp_path / f"{name}.parquet")["score"].to_numpy() for name in ("s", "t"))
    assert not np.allclose(one, two)


@pytest.mark.long
def test_torchrun_ends_all_when_one_process_fails_and_goes_on_when_typed_again(data, tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(dump_yaml(config(data)))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sama.cli",
        "score", "--config", tmp_path / "config.yaml", "--images", data / "images.npy",
        "--manifest", data / "seed0" / "manifest.parquet", "--method", "el2n", "--seed", "0",
        "--out", tmp_path / "s.parquet", "--summary", tmp_path / "s.json", "--work", tmp_path / "work",
    ]  # fmt: skip
    # where the second process looks for its training: it cannot read a folder
    obstacle = tmp_path / "work" / "el2n_model1_training_1of2.pt"
    obstacle.mkdir(parents=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode != 0
    assert obstacle.name in done.stderr
    assert not (tmp_path / "s.parquet").exists()
    obstacle.rmdir()
    subprocess.run(command, capture_output=True, timeout=200, check=True)
    assert not (tmp_path / "work").exists()
    monkeypatch.setattr(score, "BATCH", 512)  # as in those processes: one chunk, and none for the second
    alone = scored(data, tmp_path / "one", "el2n")
    assert (tmp_path / "s.parquet").read_bytes() + (tmp_path / "s.json").read_bytes() == alone
