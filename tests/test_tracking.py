"""The mirror: the same runs are kept, changed ones replaced, vanished ones gone, an interrupted one mended."""

import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sama.errors import SamaError
from sama.tracking import Database, DataSet, Outcome, Run, mirror, mirroring, run_key

NAME = "toy"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database; making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mirror(Database(path, path.parent / "mlartifacts"), NAME, [])
    return path


class Place:
    """A database and its files, and what stands in it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "mlflow.db"
        self.artifacts = folder / "mlartifacts"
        self.figure = folder / "figure.svg"
        self.figure.write_text("<svg/>")

    def mirror(self, runs: Sequence[Run]) -> Outcome:
        return mirror(Database(self.database, self.artifacts), NAME, runs)

    def query(self, text: str) -> list[Any]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(text).fetchall()

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.database}")

    def stored(self) -> dict[str, Any]:
        client = self.client()
        experiment = client.get_experiment_by_name(NAME)
        return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}

    def ids(self) -> dict[str, str]:
        return {name: run.info.run_id for name, run in self.stored().items()}


@pytest.fixture
def place(empty: Path, tmp_path: Path) -> Place:
    shutil.copy(empty, tmp_path / "mlflow.db")
    return Place(tmp_path)


def some_runs(place: Place) -> list[Run]:
    parent = Run(
        key=run_key(NAME, "full", None, "a+b"),
        name="full",
        tags={"sama.cell": "full"},
        params={"seeds": [0, 1]},
        metrics=[(100, {"test/accuracy/mean": 0.81, "test/accuracy/sd": 0.02})],
        artifacts={"figures/figure.svg": place.figure},
    )
    children = [
        Run(
            key=run_key(NAME, "full", seed, content),
            name=f"full seed {seed}",
            tags={"sama.cell": "full", "sama.seed": str(seed)},
            params={"training.steps": 100, "data.path": None},
            metrics=[(25, {"train/loss": 2.0 - seed}), (50, {"train/loss": 1.0}), (50, {"test/accuracy": 0.8})],
            data_set=DataSet("digits", f"{seed:064x}", "results/toy/data", {"examples": 12}),
            parent=parent.key,
        )
        for seed, content in enumerate("ab")
    ]
    return [parent, *children]


def test_everything_is_written(place: Place) -> None:
    runs = some_runs(place)
    assert place.mirror(runs) == Outcome(kept=0, written=3, deleted=0)
    stored = place.stored()
    assert list(stored) == ["full", "full seed 0", "full seed 1"]  # the order of the dashboard: latest start first
    child = stored["full seed 0"]
    assert child.info.status == "FINISHED"
    assert child.data.tags["sama.key"] == runs[1].key
    assert child.data.tags["mlflow.parentRunId"] == stored["full"].info.run_id
    assert child.data.params == {"training.steps": "100", "data.path": "null"}
    assert child.data.metrics == {"train/loss": 1.0, "test/accuracy": 0.8}
    history = place.client().get_metric_history(child.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(25, 2.0), (50, 1.0)]
    (used,) = child.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("digits", "0" * 36)
    folder = place.artifacts / NAME / stored["full"].info.run_id / "artifacts"
    assert (folder / "figures" / "figure.svg").read_text() == "<svg/>"


def test_no_path_of_the_machine_is_stored(place: Place) -> None:
    place.mirror(some_runs(place))
    locations = [row[0] for row in place.query("select artifact_uri from runs")]
    assert locations
    assert all(location.startswith("mlflow-artifacts:/toy/") for location in locations)


def test_a_second_mirror_changes_nothing(place: Place) -> None:
    runs = some_runs(place)
    place.mirror(runs)
    before = place.ids()
    assert place.mirror(runs) == Outcome(kept=3, written=0, deleted=0)
    assert place.ids() == before


def changed(runs: list[Run], place: Place, what: str) -> list[Run]:
    parent, first, second = runs
    match what:
        case "metric":
            first = replace(first, metrics=[*first.metrics[:-1], (50, {"test/accuracy": 0.9})])
        case "param":
            first = replace(first, params={**first.params, "training.steps": 101})
        case "input":
            first = replace(first, key=run_key(NAME, "full", 0, "another"))
        case "data":
            first = replace(first, data_set=DataSet("digits", "f" * 64, "results/toy/data"))
        case "figure":
            place.figure.write_text("<svg>new</svg>")
    return [parent, first, second]


@pytest.mark.parametrize(
    ("what", "replaced"),
    [
        ("metric", "full seed 0"),
        ("param", "full seed 0"),
        ("input", "full seed 0"),
        ("data", "full seed 0"),
        ("figure", "full"),
    ],
)
def test_a_changed_run_is_replaced_and_no_other(place: Place, what: str, replaced: str) -> None:
    runs = some_runs(place)
    place.mirror(runs)
    before = place.ids()
    assert place.mirror(changed(runs, place, what)) == Outcome(kept=2, written=1, deleted=1)
    after = place.ids()
    assert {name for name in before if before[name] != after[name]} == {replaced}
    assert place.query("select count(*) from runs") == [(3,)]
    stored = place.stored()
    for name in ("full seed 0", "full seed 1"):
        assert stored[name].data.tags["mlflow.parentRunId"] == stored["full"].info.run_id


def test_a_vanished_run_is_gone_with_its_files(place: Place) -> None:
    runs = some_runs(place)
    place.mirror(runs)
    parent = place.ids()["full"]
    assert place.mirror([]) == Outcome(kept=0, written=0, deleted=3)
    for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
        assert place.query(f"select count(*) from {table}") == [(0,)], table
    assert not (place.artifacts / NAME / parent).exists()


def test_the_runs_of_a_user_are_left_alone(place: Place) -> None:
    client = place.client()
    experiment = client.get_experiment_by_name(NAME)
    mine = client.create_run(experiment.experiment_id, run_name="mine").info.run_id
    thrown_away = client.create_run(experiment.experiment_id, run_name="thrown away").info.run_id
    client.delete_run(thrown_away)
    place.mirror(some_runs(place))
    assert place.mirror([]).deleted == 3
    assert place.stored()["mine"].info.run_id == mine
    assert place.client().get_run(thrown_away).info.lifecycle_stage == "deleted"


@pytest.mark.parametrize("moment", ["create_run", "log_batch", "log_inputs", "set_terminated", "delete_run"])
@pytest.mark.parametrize("call", [1, 2])
def test_an_interrupted_mirror_is_mended(place: Place, monkeypatch: pytest.MonkeyPatch, moment: str, call: int) -> None:
    from mlflow import MlflowClient

    old = [replace(run, params={"training.steps": 7}) for run in some_runs(place)]
    place.mirror(old)
    genuine = getattr(MlflowClient, moment)
    calls = 0

    def interrupted(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return genuine(self, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, moment, interrupted)
        place.mirror(some_runs(place))
    place.mirror(some_runs(place))
    assert place.query("select count(*) from runs") == [(3,)]
    stored = place.stored()
    assert {run.info.status for run in stored.values()} == {"FINISHED"}
    assert stored["full seed 1"].data.params == {"training.steps": "100", "data.path": "null"}
    assert stored["full seed 1"].data.metrics["test/accuracy"] == 0.8
    assert stored["full seed 1"].data.tags["mlflow.parentRunId"] == stored["full"].info.run_id
    assert len(list((place.artifacts / NAME).iterdir())) == 1
    assert place.mirror(some_runs(place)) == Outcome(kept=3, written=0, deleted=0)


def test_a_run_written_twice_is_kept_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = some_runs(place)
    place.mirror(runs)
    with monkeypatch.context() as patch:
        patch.setattr(mirroring, "_stored", lambda *_: iter(()))  # a second writer that saw an empty database
        place.mirror(runs)
    assert place.query("select count(*) from runs") == [(6,)]
    assert place.mirror(runs) == Outcome(kept=3, written=0, deleted=3)


def test_a_killed_creation_leaves_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.store.db.utils as utils

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    place = Place(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(utils, "_upgrade_db", killed)
        place.mirror([])
    assert not place.database.exists()
    assert place.mirror(some_runs(place)).written == 3


def test_an_experiment_deleted_in_the_dashboard_comes_back(place: Place) -> None:
    client = place.client()
    client.delete_experiment(client.get_experiment_by_name(NAME).experiment_id)
    assert place.mirror(some_runs(place)).written == 3
    assert client.get_experiment_by_name(NAME).lifecycle_stage == "active"


def test_more_points_than_one_call_takes(place: Place) -> None:
    points = [(step, {"train/loss": float(step)}) for step in range(2500)]
    params = {f"key{number}": number for number in range(150)}
    place.mirror([Run(key="k", name="long", tags={}, params={**params, "text": "x" * 7000}, metrics=points)])
    stored = place.stored()["long"]
    assert len(stored.data.params) == 151
    assert len(stored.data.params["text"]) == 6000
    assert place.query("select count(*), max(step) from metrics") == [(2500, 2499)]


def test_the_key_tells_experiment_cell_seed_and_inputs_apart() -> None:
    keys = [
        run_key("digits", "full", 0, "abc"),
        run_key("digits2", "full", 0, "abc"),
        run_key("digits", "clean", 0, "abc"),
        run_key("digits", "full", 1, "abc"),
        run_key("digits", "full", None, "abc"),
        run_key("digits", "full", 0, "abd"),
    ]
    assert len(set(keys)) == len(keys)
    # Databases hold it and live runs are found by it: it must stay what it is.
    assert keys[0] == "9ba47d4cc5ce11cfccb9a812d7e356454c1215f8fb0a5762bf651af4c6d450e9"


def test_two_runs_of_one_key_are_refused(place: Place) -> None:
    run = some_runs(place)[0]
    with pytest.raises(SamaError, match="run again: expected one run a key"):
        place.mirror([run, replace(run, name="again")])


def test_a_child_before_its_parent_is_refused(place: Place) -> None:
    parent, child, _ = some_runs(place)
    with pytest.raises(SamaError, match="run full seed 0: expected its parent before it"):
        place.mirror([child, parent])


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.database.write_text("this is not SQLite, but long enough to be read as a header of something\n" * 20)
    with pytest.raises(SamaError, match=r"mlflow\.db: expected a database"):
        place.mirror([])


def test_a_database_of_another_version_says_how_to_upgrade(place: Place) -> None:
    with sqlite3.connect(place.database) as connection:
        connection.execute("update alembic_version set version_num = 'ffffffffffff'")
    with pytest.raises(SamaError, match="mlflow db upgrade"):
        place.mirror([])
