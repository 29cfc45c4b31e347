"""Recording and restoring: the declared outputs, what is left over, and the whole way on a miniature experiment."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.workflow.clones import EXPERIMENT, MINIATURE, ON_TEXTS, Clone, miniature
from workflow import leftovers, stages

ROOT = stages.ROOT


def declared() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def entries(phase: dict[str, Any]) -> dict[str, Any]:
    """Output -> its options."""
    return {path: options for item in [*phase["outs"], *phase.get("metrics", [])] for path, options in item.items()}


def test_every_output_persists_and_is_cached() -> None:
    for name, phase in declared().items():
        for path, options in entries(phase).items():
            assert options == {"persist": True}, f"{name}: {path}"


def test_every_recorded_folder_is_cleared_of_leftovers_and_belongs_to_one_phase() -> None:
    outs = [path for phase in declared().values() for path in entries(phase)]
    recorded = {"${experiment}": "config/config.yaml", "${texts}": "config/texts.yaml"}
    expected = [
        f"results/{name}/{out}"
        for name, config in recorded.items()
        for out in (*leftovers.RECORDED[config], "summary.json")
    ]
    assert sorted(outs) == sorted(expected)


def test_each_phase_is_of_one_experiment_whose_configuration_it_depends_on() -> None:
    variables = yaml.safe_load((ROOT / "dvc.yaml").read_text())["vars"]
    experiment = yaml.safe_load((ROOT / "config/texts.yaml").read_text())["experiment"]
    assert variables == ["config/config.yaml", {"texts": experiment}]
    for name, phase in declared().items():
        text = name.startswith("texts_")
        assert phase["params"] == [{"config/texts.yaml" if text else "config/config.yaml": None}]
        own = "${texts}" if text else "${experiment}"
        results = [path for path in [*entries(phase), *phase["deps"]] if path.startswith("results/")]
        assert results and all(path.startswith(f"results/{own}/") for path in results), name
        *_, last = phase["cmd"]
        assert last.endswith(f"-- phase_{name.removeprefix('texts_')}")
        assert ("--configfile config/texts.yaml" in last) == text


def test_the_machine_s_state_is_not_recorded() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    for state in ("mlflow.db", ".mlflow", "logs/", "checkpoints/", "/config.yaml:\n          persist"):
        assert state not in text, state


def test_each_phase_depends_on_the_rules_it_runs() -> None:
    for name, phase in declared().items():
        assert {"Snakefile", "workflow/rules/common.smk"} <= set(phase["deps"])
        for stage in stages.PHASES[name]:
            homes = [
                path.relative_to(ROOT).as_posix()
                for path in (ROOT / "workflow/rules").glob("*.smk")
                if re.search(rf"^rule {stage}:", path.read_text(), flags=re.MULTILINE)
            ]
            assert len(homes) == 1
            assert homes[0] in phase["deps"], f"{name}: {homes[0]}"


def test_dvc_neither_reports_nor_looks_for_updates() -> None:
    text = (ROOT / ".dvc/config").read_text()
    assert "analytics = false" in text
    assert "check_update = false" in text
    assert "remote" not in text


def test_leftovers_are_files_that_no_rule_makes(tmp_path: Path) -> None:
    results = tmp_path / "results"
    kept = [results / "models/seed0/full/model.bin", results / "report/figures/a.svg", results / "summary.json"]
    dropped = [results / "models/seed0/el2n_0.3/model.bin", results / "scores/seed9/random.json"]
    unrecorded = [results / "config.yaml", results / "mine/notes.txt"]
    for path in [*kept, *dropped, *unrecorded]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    made = {kept[0], results / "report/figures", kept[2]}
    found = leftovers.leftovers(results, leftovers.RECORDED["config/config.yaml"], made)
    assert sorted(found) == sorted(dropped)
    for path in found:
        leftovers.remove(path, results)
    assert sorted(path for path in results.rglob("*") if path.is_file()) == sorted([*kept, *unrecorded])
    assert not (results / "models/seed0/el2n_0.3").exists()
    assert not (results / "scores").exists()


@pytest.mark.long
def test_record_restore_and_recompute(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = miniature(tmp_path / "first")
    first.make("record")
    assert "up to date" in first.run("dvc", "status")
    assert first.wanted() == {"track"}
    assert first.wanted(*ON_TEXTS) == {"track_texts"}
    lock = (first.folder / "dvc.lock").read_text()
    assert str(tmp_path) not in lock
    assert "didn't change" in first.run("dvc", "repro")

    shown = first.run("dvc", "metrics", "show")
    assert "accuracy.pruned.random.0.3" in shown
    assert "test.meta_r.accuracy" in shown
    plots = json.loads(first.run("dvc", "plots", "show", "--json"))["data"]
    (drawn,) = plots[f"results/{EXPERIMENT}/plots/accuracy.csv"]
    assert {row["method"] for row in drawn["content"]["data"]["values"]} == {"meta_weight", "random"}
    (drawn,) = plots["results/synthetic_texts/plots/measures.csv"]
    assert {row["method"] for row in drawn["content"]["data"]["values"]} == {"majority_vote", "meta_r"}

    first.run("dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "storage"))
    first.run("dvc", "push")
    first.run("git", "add", "dvc.lock")
    first.run("git", "commit", "--quiet", "--message", "record")
    before = first.content()

    # Restored in place, and in a clone that never ran anything: nothing but tracking is left to do.
    shutil.rmtree(first.folder / "results")
    shutil.rmtree(first.folder / ".dvc/cache")
    first.run("git", "clone", "--quiet", str(first.folder), str(tmp_path / "second"))
    second = Clone(tmp_path / "second")
    second.run("dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "storage"))
    for clone in (first, second):
        clone.make("restore")
        assert "up to date" in clone.run("dvc", "status")
        assert clone.content() == before
        assert clone.wanted() == {"track"}
        assert clone.wanted(*ON_TEXTS) == {"track_texts"}
        assert not (clone.folder / ".mlflow").exists()
        assert not (clone.folder / "mlflow.db").exists()

    # What is restored still reacts to changes, and only what follows them.
    module = second.folder / "sama/stages/retrain.py"
    text = module.read_text()
    module.write_text(text + "# a comment\n")
    assert second.wanted() == {"retrain", "retrain_whole", "evaluate", "summarize", "report", "track"}
    module.write_text(text)
    assert second.wanted() == {"track"}
    changed = {**MINIATURE, "meta": {**MINIATURE["meta"], "alpha": 0.2}}
    (second.folder / "config/config.yaml").write_text(yaml.safe_dump(changed, sort_keys=False))
    assert {"meta_train", "score"} <= second.wanted()
    assert "prepare" not in second.wanted()
    second.run("git", "checkout", "--quiet", "config")

    module = second.folder / "sama/stages/export_text.py"
    text = module.read_text()
    module.write_text(text + "# a comment\n")
    assert second.wanted(*ON_TEXTS) == {"export_text", "track_texts"}
    module.write_text(text)

    # Tracking makes the rest, and is not recorded.
    second.run("snakemake", "--quiet", "all")
    assert second.wanted() == set()
    assert "up to date" in second.run("dvc", "status")

    # A recomputation elsewhere, with another number of cores and with leftovers in its folder, gives the same lock.
    second.run("git", "clone", "--quiet", str(first.folder), str(tmp_path / "third"))
    third = Clone(tmp_path / "third")
    (third.folder / "dvc.lock").unlink()
    stray = third.results / "models/seed0/el2n_0.3/model.safetensors"
    stray.parent.mkdir(parents=True)
    stray.write_text("of a method that was dropped")
    third.run("env", "SAMA_CORES=1", "dvc", "repro")
    assert not stray.exists()
    assert (third.folder / "dvc.lock").read_text() == lock
