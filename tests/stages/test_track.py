"""What the track stage makes of a results folder: which runs, with what in them."""

import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from sama.config import load
from sama.errors import SamaError
from sama.stages import track
from sama.tracking import run_key
from tests import results_tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder that has been tracked once."""
    root = tmp_path_factory.mktemp("tracked")
    track_once(results_tree.make(root), root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def track_once(results: Path, root: Path) -> None:
    track.run(
        results=results,
        database=root / "mlflow.db",
        artifacts=root / "mlartifacts",
        out=root / ".mlflow" / f"{results.name}.json",
        config=load([results / "config.yaml"]),
    )


def stored(root: Path, experiment: str = "toy") -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return {str(run.info.run_name): run for run in client.search_runs([found.experiment_id], max_results=1000)}


CELLS = ["clean", "full", "meta", "meta_weight_0.3", "meta_weight_0.5", "random_0.3", "random_0.5"]


def test_runs_and_their_order(made: Path) -> None:
    expected = ["toy"]
    for cell in CELLS:
        expected += [cell, f"{cell} seed 0", f"{cell} seed 1"]
    assert list(stored(made)) == expected


def test_children_are_below_their_cell(made: Path) -> None:
    runs = stored(made)
    for name, run in runs.items():
        cell, seed, _ = name.partition(" seed ")
        parent = run.data.tags.get("mlflow.parentRunId")
        assert parent == (runs[cell].info.run_id if seed else None)
        assert run.data.tags["sama.cell"] == ("experiment" if name == "toy" else cell)


def test_a_child_holds_curves_final_metrics_params_and_data(made: Path) -> None:
    child = stored(made)["random_0.5 seed 1"]
    lines = (made / "results/toy/models/seed1/random_0.5/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert child.data.metrics == {
        "train/loss": last["train/loss"],
        "validation/accuracy": last["validation/accuracy"],
        "test/accuracy": pytest.approx(0.76),
        "noise_detection/auc": pytest.approx(0.99 - 1 / 3),
        "noise_detection/average_precision": pytest.approx(0.98 - 1 / 3),
        "search_cost": 0.5,
    }
    shown = child.data.params
    assert (shown["method"], shown["pruning_ratio"], shown["seed"]) == ("random", "0.5", "1")
    assert shown["cost.forward_examples"] == "12800"
    assert shown["training.optimizer.name"] == "sgd"
    assert shown["data.noise.rate"] == "0.3"
    assert not [name for name in shown if name.startswith(("launcher", "meta."))]
    (used,) = child.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", f"{1:064x}"[:36])


def test_a_curve_has_its_steps(made: Path) -> None:
    from mlflow import MlflowClient

    run = stored(made)["meta seed 0"]
    history = MlflowClient(f"sqlite:///{made / 'mlflow.db'}").get_metric_history(run.info.run_id, "train/loss")
    lines = (made / "results/toy/meta/seed0/metrics.jsonl").read_text().splitlines()
    assert [(point.step, point.value) for point in history] == [
        (point["step"], point["train/loss"]) for point in map(json.loads, lines)
    ]
    assert "meta.unroll_steps" in run.data.params
    assert "training.steps" not in run.data.params


def test_what_the_curve_has_is_not_written_twice(root: Path) -> None:
    from mlflow import MlflowClient

    path = root / "results/toy/models/seed0/full/summary.json"
    facts = json.loads(path.read_text())
    facts["metrics"] = {"validation/accuracy": 0.125, "best_step": 75}
    path.write_text(json.dumps(facts))
    track_once(root / "results/toy", root)
    run = stored(root)["full seed 0"]
    assert run.data.metrics["best_step"] == 75
    history = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_metric_history(run.info.run_id, "validation/accuracy")
    assert len(history) == 4
    assert 0.125 not in [point.value for point in history]


def test_a_cell_holds_mean_and_spread_over_seeds(made: Path) -> None:
    runs = stored(made)
    cell = runs["full"].data
    values = [runs[f"full seed {seed}"].data.metrics["test/accuracy"] for seed in (0, 1)]
    assert cell.metrics["test/accuracy_mean"] == pytest.approx(fmean(values))
    assert cell.metrics["test/accuracy_sd"] == pytest.approx(stdev(values))
    assert cell.params["seeds"] == "[0, 1]"
    assert {"train/loss_mean", "train/loss_sd"} <= set(cell.metrics)


def test_the_experiment_holds_figures_and_configuration(made: Path) -> None:
    run = stored(made)["toy"]
    folder = made / "mlartifacts" / "toy" / run.info.run_id / "artifacts"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "config.yaml",
        "figures/accuracy.svg",
        "figures/weights.svg",
        "summary.json",
    ]
    assert run.data.metrics["accuracy/meta_weight_0.3"] == pytest.approx(0.875)
    assert run.data.params["selection.pruning_ratios"] == "[0.3, 0.5]"
    assert not [name for name in run.data.params if name.startswith(("launcher", "data_root"))]


def test_tracking_again_keeps_every_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (root / ".mlflow/toy.json").read_bytes()
    track_once(root / "results/toy", root)
    assert "22 runs kept, 0 written, 0 deleted" in capsys.readouterr().out
    assert (root / ".mlflow/toy.json").read_bytes() == before


def test_the_output_lists_the_keys(made: Path) -> None:
    listed = json.loads((made / ".mlflow/toy.json").read_text())
    assert listed["experiment"] == "toy"
    assert listed["runs"]["clean seed 1"] == run_key("toy", "clean", 1, "clean-1")
    assert listed["runs"] == {name: run.data.tags["sama.key"] for name, run in stored(made).items()}


def test_new_accuracies_replace_a_cell_and_what_is_above_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "results/toy/summary.json"
    summary = json.loads(path.read_text())
    summary["full"]["accuracy"][1] = 0.5
    path.write_text(json.dumps(summary))
    track_once(root / "results/toy", root)
    assert "19 runs kept, 3 written, 3 deleted" in capsys.readouterr().out  # the seed, the cell, the experiment
    assert stored(root)["full seed 1"].data.metrics["test/accuracy"] == 0.5


def test_a_dropped_method_is_dropped_though_its_files_stay(root: Path) -> None:
    results = results_tree.make(root, scores={"methods": ["meta_weight"]})
    assert (results / "models/seed0/random_0.3").exists()
    track_once(results, root)
    assert not [name for name in stored(root) if name.startswith("random")]
    assert "meta_weight_0.3" in stored(root)


def test_two_experiments_share_the_database(root: Path) -> None:
    track_once(results_tree.make(root, "other", seeds=[7]), root)
    assert len(stored(root)) == 22
    other = stored(root, "other")
    assert "clean seed 7" in other
    assert "test/accuracy_sd" not in other["clean"].data.metrics  # one seed has no spread


def test_unknown_clean_labels_and_no_meta_training(root: Path) -> None:
    results = results_tree.make(root, scores={"methods": ["random"]})
    summary = json.loads((results / "summary.json").read_text())
    summary.update(clean={}, meta={}, noise_detection={})
    (results / "summary.json").write_text(json.dumps(summary))
    track_once(results, root)
    runs = stored(root)
    assert {run.data.tags["sama.cell"] for run in runs.values()} == {"experiment", "full", "random_0.3", "random_0.5"}
    assert "noise_detection/auc" not in runs["random_0.3 seed 0"].data.metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: (results / "meta/seed1/metrics.jsonl").unlink(), r"meta/seed1/metrics\.jsonl: missing"),
        (lambda results: (results / "models/seed0/full/summary.json").unlink(), r"full/summary\.json: missing"),
        (
            lambda results: (results / "models/seed0/full/summary.json").write_text("{}"),
            r"full/summary\.json: expected a key content_hash",
        ),
        (
            lambda results: (results / "meta/seed0/metrics.jsonl").write_text('{"step": 1}\n{"loss": 2}\n'),
            r"metrics\.jsonl:2: expected an object with a step",
        ),
        (lambda results: edit(results, "full", {"accuracy": [0.5]}), "expected 2 values of test/accuracy, got 1"),
        (lambda results: edit(results, "pruned", {"random": {}}), r"expected pruned\.meta_weight\.0\.3, got none"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path: Path, change: Any, message: str) -> None:
    results = results_tree.make(tmp_path)
    change(results)
    with pytest.raises(SamaError, match=message):
        track_once(results, tmp_path)
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / ".mlflow").exists()


def edit(results: Path, key: str, value: Any) -> None:
    summary = json.loads((results / "summary.json").read_text())
    summary[key] = value
    (results / "summary.json").write_text(json.dumps(summary))
