"""The real workflow in miniature: what it makes, what an edit re-runs, what it must not look at."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.workflow.clones import Clone, miniature

MODULE = "sama/hypergradient/sama.py"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the miniature experiment has been run, end to end."""
    clone = miniature(tmp_path_factory.mktemp("pipeline"))
    clone.run("sama", "pipeline", "--", "--cores", "2", "--quiet", "rules")
    return clone


def test_everything_is_made_and_nothing_is_left_to_do(done: Clone) -> None:
    assert done.wanted() == set()
    summary = json.loads((done.results / "summary.json").read_text())
    assert set(summary) == {
        "experiment", "seeds", "full", "clean", "meta", "pruned", "noise_detection", "search_cost",
    }  # fmt: skip
    seeds = summary["seeds"]
    for method, ratios in summary["pruned"].items():
        assert all(len(cell["accuracy"]) == len(seeds) for cell in ratios.values())
        assert len(summary["search_cost"][method]) == len(seeds)
        assert 0 <= summary["noise_detection"][method]["auc"][0] <= 1
    assert summary["search_cost"]["random"] == [0.0] * len(seeds)
    assert (done.results / "report" / "index.html").stat().st_size > 10_000
    assert not (done.folder / "checkpoints").exists() or not list((done.folder / "checkpoints").rglob("*.pt"))


def test_the_merged_configuration_stands_beside_the_results(done: Clone) -> None:
    saved = yaml.safe_load((done.results / "config.yaml").read_text())
    assert saved["experiment"] == done.results.name
    assert saved["meta"]["method"] == "sama"


@pytest.mark.parametrize(
    ("edited", "expected", "spared"),
    [
        (
            "sama/stages/retrain.py",
            {"retrain", "retrain_whole", "evaluate", "report"},
            {"prepare", "meta_train", "select"},
        ),
        (MODULE, {"meta_train", "score", "evaluate", "report"}, {"prepare"}),
        ("sama/scores/margin.py", {"score"}, {"prepare", "meta_train"}),
        ("sama/report/page.py", {"report", "track"}, {"evaluate", "retrain"}),
        ("sama/stages/suspects.py", {"suspects", "report"}, {"select", "retrain", "evaluate"}),
    ],
)
def test_an_edit_reruns_what_depends_on_it_and_nothing_else(done, edited, expected, spared) -> None:
    path = done.folder / edited
    text = path.read_text()
    path.write_text(text + "# a comment\n")
    try:
        wanted = done.wanted()
    finally:
        path.write_text(text)
    assert expected <= wanted
    assert not spared & wanted


@pytest.mark.parametrize(
    ("changes", "spared"),
    [
        ({"scores": {"el2n": {"models": 9}}}, {"score", "select", "retrain"}),  # el2n is none of the methods
        ({"selection": {"d2": {"neighbors": 9}}}, {"score", "select", "retrain"}),  # and d2 not the strategy
        ({"selection": {"strategy": "class_balanced"}}, {"score"}),
    ],
)
def test_a_knob_that_a_job_does_not_use_does_not_rerun_it(done: Clone, tmp_path: Path, changes, spared) -> None:
    (tmp_path / "knob.yaml").write_text(yaml.safe_dump(changes))
    wanted = done.wanted("--configfile", str(tmp_path / "knob.yaml"))
    assert ("select" in wanted) == ("select" not in spared)
    assert not spared & wanted


def test_an_edit_that_is_taken_back_reruns_nothing(done: Clone) -> None:
    path = done.folder / MODULE
    path.write_text(path.read_text())  # newer, and the same
    assert done.wanted() == set()


def test_no_learner_sees_a_clean_label(done: Clone, tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "garbage", symlinks=True)
    clone = Clone(tmp_path / "garbage")
    manifest = next(clone.results.glob("data/seed*/manifest.parquet"))
    kept = {path: path.read_bytes() for path in clone.results.glob("kept/*/*.parquet")}
    assert kept
    frame = pd.read_parquet(manifest)
    assert np.count_nonzero(frame["label"].to_numpy() != frame["clean_label"].to_numpy()) > 20
    frame["clean_label"] = np.random.default_rng(0).integers(-10, 1000, len(frame))
    frame.to_parquet(manifest, index=False)
    for path in [*kept, *clone.results.glob("scores/*/*"), *clone.results.glob("meta/*/*")]:
        path.unlink()
    clone.run("snakemake", "--cores", "2", "--quiet", "rules", "--", "phase_select")
    assert {path: path.read_bytes() for path in clone.results.glob("kept/*/*.parquet")} == kept


def test_a_second_pipeline_in_the_folder_is_refused(done: Clone) -> None:
    holder = "import sys; from sama import guard; guard.hold_folder(); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [done.python, "-c", holder], cwd=done.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = done.attempt("sama", "pipeline", "--", "--cores", "1")
        first.terminate()
    assert second.returncode == 1
    (line,) = [line for line in second.stderr.splitlines() if line]
    assert str(first.pid) in line


def test_a_folder_of_images_needs_two_commands(done: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sama init`, then `make reproduce`; a tenth of the labels is wrong, and the suspects are those."""
    generator = np.random.default_rng(0)
    names = ("apple", "brick", "cloud")
    for number in range(120):
        pixels = generator.integers(0, 60, (20, 24, 3), dtype=np.uint8)
        pixels[..., number % 3] += 150
        name = names[(number + (number >= 108)) % 3]
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number:03d}.png")
    said = done.run("sama", "init", "folder.yaml", "--images", str(tmp_path / "photos"))
    assert "120 images of 3 classes" in said
    overlay = yaml.safe_load((done.folder / "folder.yaml").read_text())
    overlay["seeds"] = [0, 1]
    for recipe in (overlay["training"], overlay["meta"]["training"]):
        recipe |= {"steps": 24, "batch_size": 16, "log_every": 8}
    overlay["meta"]["batch_size"] = 16
    overlay["scores"]["methods"] = ["meta_weight"]
    overlay["selection"]["pruning_ratios"] = [0.3]
    (done.folder / "folder.yaml").write_text(yaml.safe_dump(overlay))
    venv = (f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.setup-done")
    done.run("make", "reproduce", *venv, "CONFIG=folder.yaml", "CORES=2")
    results = done.folder / "results" / "folder"
    summary = json.loads((results / "summary.json").read_text())
    assert summary["clean"] == {}
    assert summary["noise_detection"] == {}
    assert summary["full"]["accuracy"][0] > 0.5
    for file in ("config.yaml", "report/index.html", "suspects/kept.csv", "suspects/suspect_labels.csv"):
        assert str(tmp_path) not in (results / file).read_text(), file
    kept = pd.read_parquet(results / "kept/seed0/meta_weight_0.3.parquet")
    assert kept["sample_id"].str.match(r"^(apple|brick|cloud)/\d{3}\.png$").all()

    suspects = pd.read_csv(results / "suspects/suspect_labels.csv")
    truth = [names[int(sample_id[-7:-4]) % 3] for sample_id in suspects["sample_id"]]
    assert {int(sample_id[-7:-4]) for sample_id in suspects["sample_id"]} == set(range(108, 120))
    assert suspects["suggested"].tolist() == truth

    subset = readme_subset(done, tmp_path, monkeypatch)
    table = pd.read_csv(results / "suspects/kept.csv")
    paths = [Path(subset.dataset.samples[index][0]).relative_to("photos").as_posix() for index in subset.indices]
    assert sorted(paths) == sorted(table["sample_id"])
    assert 60 < len(subset) < 120


def readme_subset(done: Clone, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The README's lines that load the kept list, run where the folder of images lies."""
    readme = (done.folder / "README.md").read_text()
    (lines,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "ImageFolder" in code]
    (folder / "results").symlink_to(done.folder / "results")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(lines.replace("results/photos/", "results/folder/"), names)
    return names["subset"]
