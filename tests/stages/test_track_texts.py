"""What the mirror makes of an experiment on texts: which runs, with what in them."""

from pathlib import Path
from statistics import stdev
from typing import Any

import pytest

from sama.config import TextsConfig, load_any
from sama.errors import SamaError
from sama.files import read_json, write_json
from sama.stages import track_texts
from tests import planted_texts


def track(results: Path, root: Path) -> None:
    config = load_any([results / "config.yaml"])
    assert isinstance(config, TextsConfig)
    track_texts.run(
        results=results,
        database=root / "mlflow.db",
        artifacts=root / "mlartifacts",
        out=root / ".mlflow/planted_texts.json",
        config=config,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("tracked")
    results = planted_texts.build(root, methods=("majority_vote", "meta_rc"), seeds=(0, 1))
    track(results, root)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name("planted_texts")
    assert found is not None
    return results, {str(run.info.run_name): run for run in client.search_runs([found.experiment_id])}


def test_a_run_for_the_experiment_each_method_and_each_seed(made):
    _, runs = made
    expected = ["planted_texts"]
    for method in ("majority_vote", "meta_rc"):
        expected += [method, f"{method} seed 0", f"{method} seed 1"]
    assert list(runs) == expected
    for name, run in runs.items():
        method, seed, _ = name.partition(" seed ")
        assert run.data.tags.get("mlflow.parentRunId") == (runs[method].info.run_id if seed else None)


def test_a_seed_holds_curve_final_numbers_and_what_was_chosen(made):
    results, runs = made
    child, summary = runs["meta_rc seed 1"], read_json(results / "summary.json")
    metrics = child.data.metrics
    assert metrics["test/accuracy"] == pytest.approx(summary["test"]["meta_rc"]["accuracy"][1])
    assert metrics["noise_detection/auc"] == pytest.approx(summary["noise_detection"]["meta_rc"]["auc"][1])
    corrected = summary["correction"]["meta_rc"]["corrected_accuracy"][1]
    assert metrics["correction/corrected_accuracy"] == pytest.approx(corrected)
    assert metrics["kept_weights/validation_accuracy"] == pytest.approx(summary["validation"]["meta_rc"][1])
    assert metrics["relative_cost"] == 4.0
    assert metrics["train/loss"] == pytest.approx(20 / 60)
    params = child.data.params
    assert (params["method"], params["seed"]) == ("meta_rc", "1")
    assert params["training.optimizer.learning_rate"] == "0.002"
    assert params["meta.method"] == "sama"
    assert "finetuning.methods" not in params
    assert not [name for name in runs["majority_vote seed 1"].data.params if name.startswith("meta.")]
    (used,) = child.inputs.dataset_inputs
    assert '"examples": 120' in used.dataset.profile


def test_a_method_and_the_experiment_hold_means(made):
    results, runs = made
    values = read_json(results / "summary.json")["test"]["meta_rc"]["accuracy"]
    metrics = runs["meta_rc"].data.metrics
    assert metrics["test/accuracy_mean"] == pytest.approx(sum(values) / 2)
    assert metrics["test/accuracy_sd"] == pytest.approx(stdev(values))
    assert runs["planted_texts"].data.metrics["accuracy/meta_rc"] == pytest.approx(sum(values) / 2)


def test_a_summary_of_other_methods_is_refused(tmp_path):
    results = planted_texts.build(tmp_path, methods=("majority_vote", "clean_only"), seeds=(0,))
    summary = read_json(results / "summary.json")
    del summary["test"]["clean_only"]
    write_json(results / "summary.json", summary)
    with pytest.raises(SamaError, match=r"expected test\.clean_only, got majority_vote"):
        track(results, tmp_path)
