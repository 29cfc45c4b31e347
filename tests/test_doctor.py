"""`sama doctor`: what it finds, with commands of Slurm that answer as told; the real ones are in tests/cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sama import cli, doctor
from sama.config import Config, TextsConfig, validate_any

ROOT = Path(__file__).resolve().parent.parent


def configured(**changes: Any) -> Config | TextsConfig:
    return validate_any({"experiment": "toy", **changes})


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, no data root, no server."""
    for name in ("SAMA_DATA_DIR", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(config: Config | TextsConfig, partition: str | None = None, gpus: int = 0) -> dict[str, tuple[str, str]]:
    return {finding.what: (finding.state, finding.text) for finding in doctor.examine(config, partition, gpus)}


def slurm(folder: Path, monkeypatch: pytest.MonkeyPatch, commands: Mapping[str, str]) -> None:
    """Programs of these names on the PATH, each a shell script."""
    for name, body in commands.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


SINFO = "echo 'normal|up|1-00:00:00|2|gpu:2'; echo 'old|drain|infinite|1|(null)'"


def test_the_embedded_experiment_needs_nothing(alone: Path) -> None:
    states = found(configured())
    assert {name: state for name, (state, _) in states.items() if name != "GPU"} == dict.fromkeys(
        ("room", "folder", "data", "tracking"), "ok"
    )
    assert list(alone.iterdir()) == []  # nothing is left behind


@pytest.mark.parametrize(
    ("source", "path", "root", "state", "says"),
    [
        ("cifar10", None, None, "mend", "no folder is named that holds cifar10: set SAMA_DATA_DIR, or data_root"),
        ("image_folder", "cats", None, "mend", "no folder is named that holds cats"),
        ("image_folder", "cats", ".", "mend", "cats is missing"),
        ("image_folder", "dogs", ".", "ok", "dogs"),
        ("cifar10", None, "nowhere", "mend", "nowhere is missing"),
    ],
)
def test_data(alone: Path, source: str, path: str | None, root: str | None, state: str, says: str) -> None:
    (alone / "dogs").mkdir()
    data_root = None if root is None else str(alone / root)
    got = found(configured(data={"source": source, "path": path}, data_root=data_root))["data"]
    assert got[0] == state
    assert says in got[1]


def test_a_gpu_that_is_asked_for_and_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found(configured(runtime={"device": "cuda"}))["GPU"][0] == "mend"
    assert found(configured(runtime={"device": "auto"}))["GPU"][0] == "note"


def test_a_folder_without_locks_or_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(doctor.fcntl, "flock", refused)
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 10**6)
    states = found(configured())
    assert states["folder"][0] == states["room"][0] == "mend"
    assert "Operation not supported" in states["folder"][1]


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    state, text = found(configured())["tracking"]
    assert state == "mend"
    assert text.startswith("http://127.0.0.1:9: expected an MLflow server that answers")
    assert text.endswith("jobs run without it, and are mirrored when it is back")


@pytest.mark.parametrize("named", ["htp://127.0.0.1:5000", "127.0.0.1:5000"])
def test_a_server_whose_name_nobody_understands(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    state, text = found(configured())["tracking"]
    assert state == "mend"
    assert text.startswith(f"MLFLOW_TRACKING_URI={named} is not used, expected http://HOST:PORT")


def test_no_slurm_here(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone / "bin").mkdir()
    monkeypatch.setenv("PATH", str(alone / "bin"))
    assert found(configured(), "normal")["Slurm"] == (
        "mend",
        "sinfo is not on the PATH: run this where jobs are submitted from",
    )


@pytest.mark.parametrize(
    ("commands", "partition", "what", "state", "says"),
    [
        ({"sinfo": "echo 'no controller' >&2; exit 1"}, "normal", "Slurm", "mend", "no controller"),
        ({"sinfo": SINFO}, "big", "partition", "mend", "there is no big, expected one of normal, old"),
        ({"sinfo": SINFO}, "old", "partition", "mend", "old is drain, expected up"),
        ({"sinfo": SINFO, "srun": "echo sees 0"}, "normal", "partition", "ok", "2 nodes, time limit 1-00:00:00"),
        ({"sinfo": SINFO, "sacct": "exit 1", "srun": "echo sees 0"}, "normal", "accounting", "note", "does not answer"),
        ({"sinfo": SINFO, "sacct": ":", "srun": "echo sees 0"}, "normal", "accounting", "ok", "answers"),
        ({"sinfo": SINFO, "srun": "echo sees 0"}, "normal", "node", "ok", "a job runs"),
        (
            {"sinfo": SINFO, "srun": "echo FileNotFoundError: x >&2; exit 1"},
            "normal",
            "node",
            "mend",
            "work in a folder that all nodes share",
        ),
        (
            {"sinfo": SINFO, "srun": "echo 'srun: error: Unable to allocate resources: Busy' >&2; exit 1"},
            "normal",
            "node",
            "note",
            "no job could start within 60 s",
        ),
        ({"sinfo": SINFO, "srun": "echo gone >&2; exit 2"}, "normal", "node", "mend", "fails (gone)"),
        ({"sinfo": SINFO, "srun": "echo sees 0"}, "normal", "node's GPU", "mend", "a job that asks for 1 sees 0"),
    ],
)
def test_clusters(
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: dict[str, str],
    partition: str,
    what: str,
    state: str,
    says: str,
) -> None:
    slurm(alone, monkeypatch, commands)
    got = found(configured(), partition, gpus=1)[what]
    assert got[0] == state
    assert says in got[1]
    assert [path.name for path in alone.iterdir()] == ["bin"]  # the probe is gone


def test_the_exit_code_says_whether_something_is_to_be_mended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert cli.run(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to mend"
    assert cli.run(["doctor", "config/experiments/wrench_bert.yaml"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 to mend"
    assert any(line.startswith("mend  data ") and "wrench/trec" in line for line in lines)
