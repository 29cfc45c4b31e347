"""The workflow on texts in miniature: from votes to the exported model, and what an edit re-runs."""

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.workflow.clones import Clone, miniature

SMALL = {
    "workload": "texts",
    "experiment": "small_texts",
    "seeds": [0],
    "data": {"max_texts": 200},
    "model": {"max_length": 24, "hidden_size": 8, "layers": 1, "heads": 1},
    "training": {"steps": 6, "batch_size": 16, "log_every": 3},
    "finetuning": {"methods": ["majority_vote", "meta_r"]},
    "tuning": {"seeds": [100], "grids": None},
    "launcher": {"kind": "inline"},
}
CONFIG = ("--configfile", "small.yaml")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = miniature(tmp_path_factory.mktemp("texts"))
    (clone.folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    clone.results = clone.folder / "results" / "small_texts"
    clone.run("sama", "pipeline", "--", "--cores", "2", "--quiet", "rules", *CONFIG)
    return clone


def test_everything_is_made_and_nothing_is_left_to_do(done: Clone) -> None:
    assert done.wanted(*CONFIG) == set()
    summary = json.loads((done.results / "summary.json").read_text())
    assert {method: len(row["accuracy"]) for method, row in summary["test"].items()} == {
        "majority_vote": 1,
        "meta_r": 1,
    }
    assert (done.results / "model" / "README.md").is_file()
    assert (done.results / "suspects" / "suspect_labels.csv").is_file()
    assert yaml.safe_load((done.results / "config.yaml").read_text())["workload"] == "texts"
    assert not list((done.folder / "checkpoints").rglob("*.pt"))


def test_an_edit_reruns_what_depends_on_it(done: Clone) -> None:
    for module, expected, spared in (
        ("sama/stages/suspect_texts.py", {"suspect_texts"}, {"finetune", "finetune_meta", "tune", "evaluate_texts"}),
        ("sama/finetuning/meta.py", {"tune", "finetune_meta", "evaluate_texts"}, {"prepare_texts"}),
    ):
        path = done.folder / module
        before, stamp = path.read_text(), path.stat()
        path.write_text(before + "\n")
        wanted = done.wanted(*CONFIG)
        path.write_text(before)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert expected <= wanted
        assert not spared & wanted


def test_another_method_runs_what_is_new(done: Clone, tmp_path: Path) -> None:
    methods = [*SMALL["finetuning"]["methods"], "clean_only"]
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({**SMALL, "finetuning": {"methods": methods}}))
    text = done.run("snakemake", "--dry-run", "--configfile", str(more))
    assert "results/small_texts/models/seed0/clean_only/model.safetensors" in text
    assert "results/small_texts/models/seed0/meta_r/model.safetensors\n    log" not in text
    assert not {"prepare_texts", "finetune_meta"} & done.wanted("--configfile", str(more))
