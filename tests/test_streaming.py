"""Live curves on a real MLflow server that is killed, late, away, or another one."""

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sama.metrics import MetricLog
from sama.tracking import Database, Live, Run, Server, live, mirror, run_key, store, streaming
from tests.toy_pipeline import wait_until
from tests.tracking_server import TrackingServer

NAME = "toy"
KEY = run_key(NAME, "full", 0, "inputs")
TAGS = {"sama.cell": "full", "sama.seed": "0"}


class Host(TrackingServer):
    """A server, and what stands in its database."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "--artifacts-destination", "files")
        self.database = folder / "mlflow.db"

    def query(self, text: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(text).fetchall()

    def points(self) -> Counter[tuple[str, int, float]]:
        found = self.query("select key, step, value from metrics where key not like 'system/%'")
        return Counter((key, step, value) for key, step, value in found)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    mirror(Database(path, path.parent / "mlartifacts"), NAME, [])
    return path


@pytest.fixture
def host(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(streaming, "SECONDS", 0.1)
    monkeypatch.setattr(streaming, "LONGEST_WAIT", 0.5)
    monkeypatch.setattr(streaming, "SYSTEM_SECONDS", 0.5)
    for name, value in store.PATIENCE.items():
        monkeypatch.setenv(name, value)
    shutil.copy(empty, tmp_path / "mlflow.db")
    made = Host(tmp_path)
    yield made
    made.kill()


def stream(host: Host, metrics: Path) -> Live:
    return Live(Server(host.uri), NAME, KEY, "full seed 0", TAGS, metrics)


def written(path: Path) -> Counter[tuple[str, int, float]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return Counter((name, line["step"], value) for line in lines for name, value in line.items() if name != "step")


def as_run(path: Path, figure: Path | None = None) -> Run:
    curve = [json.loads(line) for line in path.read_text().splitlines()]
    metrics = [(line.pop("step"), line) for line in curve]
    final = (metrics[-1][0], {"test/accuracy": 0.9})
    files = {} if figure is None else {"figures/a.svg": figure}
    return Run(KEY, "full seed 0", TAGS, {"steps": 40}, [*metrics, final], artifacts=files)


def test_a_server_that_is_killed_and_comes_back_holds_every_point_once(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    host.start()
    with MetricLog(path) as log:
        running = stream(host, path)
        for step in range(1, 13):
            log.write(step, {"train/loss": 1 / step, "rate": 0.1})
            time.sleep(0.05)
        wait_until(lambda: bool(host.points()), "the server", 60)
        host.kill()
        for step in range(13, 30):
            log.write(step, {"train/loss": 1 / step, "rate": 0.1})
            time.sleep(0.02)
        host.start()
        wait_until(lambda: host.points()[("rate", 29, 0.1)] == 1, "the server", 60)
        for step in range(30, 41):
            log.write(step, {"train/loss": 1 / step, "rate": 0.1})
    running.close("FINISHED")
    assert host.points() == written(path)
    assert host.query("select count(*) from metrics where key like 'system/cpu%'") > [(0,)]
    ((identity, status),) = host.query("select run_uuid, status from runs")
    assert status == "FINISHED"

    figure = tmp_path / "figure.svg"
    figure.write_text("<svg/>")
    run = as_run(path, figure)
    outcome = mirror(Server(host.uri), NAME, [run])
    assert (outcome.kept, outcome.written, outcome.deleted) == (0, 1, 0)
    assert host.query("select run_uuid from runs") == [(identity,)]  # completed, and its system metrics kept
    assert host.points() == Counter(run.points())
    assert host.query("select count(*) from metrics where key like 'system/cpu%'") > [(0,)]
    assert (host.folder / "files" / NAME / str(identity) / "artifacts" / "figures" / "a.svg").read_text() == "<svg/>"
    assert mirror(Server(host.uri), NAME, [run]).kept == 1


def test_a_job_that_continues_continues_its_run(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    host.start()
    log = MetricLog(path)
    first = stream(host, path)
    for step in range(1, 21):
        log.write(step, {"train/loss": 1 / step})
    wait_until(lambda: host.points()[("train/loss", 20, 0.05)] == 1, "the server", 60)
    log.close()
    first.close("KILLED")
    assert host.query("select status from runs") == [("KILLED",)]
    log = MetricLog(path, resume_step=10)  # of the last checkpoint
    second = stream(host, path)
    for step in range(11, 31):
        log.write(step, {"train/loss": 1 / step})
    log.close()
    wait_until(lambda: host.query("select status from runs") == [("RUNNING",)], "the server", 60)
    second.close("FINISHED")
    assert host.points() == written(path)
    assert host.query("select status from runs") == [("FINISHED",)]

    # another value of a step, as a GPU may give it when it redoes steps: what the files say is written anew
    other = Run(KEY, "full seed 0", TAGS, {}, [(40, {"train/loss": 0.5})])
    assert mirror(Server(host.uri), NAME, [other]).deleted == 1
    active = "select key, step, value from metrics natural join runs where lifecycle_stage = 'active'"
    assert [row for row in host.query(active) if not str(row[0]).startswith("system/")] == [("train/loss", 40, 0.5)]


def test_another_database_behind_the_address_gets_everything(host: Host, empty: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    host.start()
    with MetricLog(path) as log:
        running = stream(host, path)
        log.write(1, {"train/loss": 1.0})
        wait_until(lambda: bool(host.points()), "the server", 60)
        host.kill()
        for leftover in tmp_path.glob("mlflow.db*"):
            leftover.unlink()
        shutil.copy(empty, host.database)
        host.start()
        log.write(2, {"train/loss": 0.5})
        wait_until(lambda: len(host.points()) == 2, "the server", 60)
    running.close("FINISHED")
    assert host.points() == written(path)


def test_a_server_that_is_away_costs_nothing(host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricLog(path) as log:
        running = stream(host, path)
        log.write(1, {"train/loss": 1.0})
        time.sleep(0.5)
    began = time.monotonic()
    running.close("FINISHED")
    assert time.monotonic() - began < streaming.CLOSE_SECONDS + 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("live curves:")]
    assert len(lines) == 1  # said once
    assert host.uri in lines[0]


@pytest.mark.parametrize(
    ("uri", "experiment"), [("", "toy"), ("sqlite:///mlflow.db", "toy"), ("http://127.0.0.1:9", None)]
)
def test_nothing_is_streamed_without_a_server_or_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, experiment: str | None
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    if experiment is not None:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    assert live(tmp_path / "metrics.jsonl", "full", 0, "inputs") is None
