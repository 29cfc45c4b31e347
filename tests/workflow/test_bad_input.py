"""What a user can get wrong ends in one line that says what and where, and leaves nothing half-written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sama.config import DataConfig, NoiseConfig, SplitConfig
from sama.stages import prepare
from tests.forked import sama
from tests.workflow.clones import miniature

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    noise = NoiseConfig(kind="symmetric", rate=0.3)
    splits = SplitConfig(meta=40, validation=40, test=60)
    prepare.run(out=folder, seeds=(0,), data_root=None, data=DataConfig(max_images=300, splits=splits, noise=noise))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB, smaller than the weights of the model and a checkpoint together."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def retrain(data: Path, out: Path, tmp_path: Path, **overlay: object) -> subprocess.CompletedProcess[str]:
    settings = {"training": {"steps": 3, "batch_size": 8, "log_every": 1}, **overlay}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    options = {
        "config": tmp_path / "config.yaml",
        "images": data / "images.npy",
        "manifest": data / "seed0" / "manifest.parquet",
        "cell": "full",
        "out": out,
        "work": tmp_path / "work",
        "seed": 0,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return sama("retrain", *words, folder=tmp_path)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_the_same_command_with_good_input_works(data: Path, tmp_path: Path) -> None:
    done = retrain(data, tmp_path / "out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
    ]


def test_unknown_model_comes_with_the_nearest_names(data: Path, tmp_path: Path) -> None:
    line = last_line(retrain(data, tmp_path / "out", tmp_path, model={"name": "test_resnett"}))
    assert line.startswith("sama retrain: model.name: unknown timm model 'test_resnett' (nearest: test_resnet")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_explodes_names_step_and_tensor(data: Path, tmp_path: Path) -> None:
    training = {"steps": 20, "batch_size": 8, "optimizer": {"learning_rate": 1e30}}
    line = last_line(retrain(data, tmp_path / "out", tmp_path, training=training))
    assert line.startswith("sama retrain: step ")
    assert "the training loss is nan, expected a finite number; of what went in all is finite, the largest is " in line
    assert not (tmp_path / "out").exists()


def test_a_full_disk_names_the_file(data: Path, small_disk: Path, tmp_path: Path) -> None:
    line = last_line(retrain(data, small_disk / "out", tmp_path))
    assert "No space left on device" in line
    assert str(small_disk / "out" / "model.safetensors") in line
    assert [p for p in small_disk.rglob("*") if p.is_file()] == []


def test_no_right_to_write_names_the_folder(data: Path, tmp_path: Path) -> None:
    out = Path("/proc/sama-test") if os.geteuid() == 0 else tmp_path / "locked" / "out"
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
    assert str(out) in last_line(retrain(data, out, tmp_path))


def test_kept_ids_of_other_data_are_refused(data: Path, tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame({"sample_id": ["digits/99999"]}).to_parquet(tmp_path / "kept.parquet")
    (tmp_path / "config.yaml").write_text("{}")
    words = ["--config", str(tmp_path / "config.yaml"), "--images", str(data / "images.npy"), "--manifest"]
    words += [str(data / "seed0/manifest.parquet"), "--cell", "x", "--out", str(tmp_path / "out"), "--work"]
    words += [str(tmp_path / "work"), "--seed", "0", "--kept", str(tmp_path / "kept.parquet")]
    done = sama("retrain", *words, folder=tmp_path)
    assert "kept id digits/99999 is not in split train" in last_line(done)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"metta": {"alpha": 1}}, "sama: config: unknown key metta (did you mean meta?)"),
        (
            {"selection": {"pruning_ratios": [1.5]}},
            "sama: config: selection.pruning_ratios.0: Input should be less than 1, got 1.5",
        ),
    ],
)
def test_the_workflow_stops_before_any_job(overlay: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--configfile", str(tmp_path / "wrong.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    said = [
        line for line in done.stderr.splitlines() if line and not line.startswith("Using workflow specific profile")
    ]
    assert len(said) == 1
    assert said[0].startswith(message)


def test_a_model_that_does_not_take_the_images_says_so(data: Path, tmp_path: Path) -> None:
    line = last_line(retrain(data, tmp_path / "out", tmp_path, model={"name": "test_vit", "small_stem": False}))
    assert "model.name: test_vit does not take images of 8x8 pixels" in line
    assert "set data.image_size" in line


def test_make_reproduce_ends_with_the_line_of_the_stage(tmp_path: Path) -> None:
    clone = miniature(tmp_path)
    make = ("make", "reproduce", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.setup-done")
    missing = clone.attempt(*make, "CONFIG=nowhere.yaml")
    assert missing.returncode != 0
    assert "config file nowhere.yaml: cannot be read (No such file or directory)" in missing.stderr.splitlines()[0]
    (tmp_path / "wrong.yaml").write_text(
        yaml.safe_dump({"data": {"source": "image_folder", "path": "/nowhere/photos"}})
    )
    failed = clone.attempt(*make, "CONFIG=wrong.yaml")
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("sama prepare: ")]
    assert "/nowhere/photos" in line
    assert line.endswith("[logs/digits_pruning/prepare.log]")
