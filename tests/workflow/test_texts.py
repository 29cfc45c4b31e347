"""The workflow on texts in miniature: from votes to the exported model, and what an edit re-runs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tests.workflow.clones import ON_TEXTS, TEXTS, Clone, miniature


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = miniature(tmp_path_factory.mktemp("texts"))
    clone.results = clone.folder / "results" / "synthetic_texts"
    clone.run("sama", "pipeline", "--", "--cores", "2", "--quiet", "rules", *ON_TEXTS)
    return clone


def test_everything_is_made_and_nothing_is_left_to_do(done: Clone) -> None:
    assert done.wanted(*ON_TEXTS) == set()
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
        wanted = done.wanted(*ON_TEXTS)
        path.write_text(before)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert expected <= wanted
        assert not spared & wanted


def test_another_method_runs_what_is_new(done: Clone, tmp_path: Path) -> None:
    methods = [*TEXTS["finetuning"]["methods"], "clean_only"]
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump({"workload": "texts", "finetuning": {"methods": methods}}))
    text = done.run("snakemake", "--dry-run", "--configfile", str(more))
    models = [line for line in text.splitlines() if line.strip().startswith("output:") and "model.safetensors" in line]
    assert ["clean_only" in line for line in models] == [True]
    assert "rule prepare_texts:" not in text


@pytest.mark.long
def test_results_of_before_are_not_taken_for_those_of_a_job_that_failed(tmp_path: Path) -> None:
    clone = miniature(tmp_path)
    wanted = ("results/synthetic_texts/models/seed0/majority_vote/summary.json",)
    target = (*wanted, "--quiet", "rules", *ON_TEXTS)
    clone.run("snakemake", "--cores", "1", *target)
    module = clone.folder / "sama" / "stages" / "finetune.py"
    module.write_text(f"{module.read_text()}# another version\n")
    work = clone.folder / "checkpoints" / "synthetic_texts" / "finetune_seeds_majority_vote"
    shutil.rmtree(work, ignore_errors=True)
    work.parent.mkdir(parents=True, exist_ok=True)
    work.touch()  # no folder: the stage fails
    assert clone.attempt("snakemake", "--cores", "1", *target).returncode == 1
    assert "finetune" in clone.wanted(*target)


@pytest.mark.long
def test_another_seed_trains_that_alone_in_a_job_that_has_all(tmp_path: Path) -> None:
    clone = miniature(tmp_path)
    models = clone.folder / "results" / "synthetic_texts" / "models"
    said, found = [], []
    for seeds in ([0, 1], [0, 1, 2]):
        (tmp_path / "seeds.yaml").write_text(yaml.safe_dump({"workload": "texts", "seeds": seeds}))
        clone.run("snakemake", "--quiet", "all", "--configfile", "seeds.yaml", "--", "phase_finetune")
        said.append((tmp_path / "logs/synthetic_texts/finetune/seeds_meta_r.log").read_text())
        found.append({seed: (models / f"seed{seed}/meta_r/model.safetensors").read_bytes() for seed in seeds})
        assert clone.wanted("--configfile", "seeds.yaml", "--", "phase_finetune") == set()
    assert [f"meta_r seed {seed}:" in log for log in said for seed in range(3)] == [1, 1, 0, 0, 0, 1]
    assert found[0].items() <= found[1].items()
