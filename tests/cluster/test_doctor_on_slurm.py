"""`sama doctor` at a real cluster."""

from pathlib import Path

import pytest
import torch

from sama import doctor
from sama.config import validate_any
from tests.cluster.slurm import Slurm


def told(partition: str, gpus: int = 0) -> dict[str, tuple[str, str]]:
    """State and text of what it finds at the cluster."""
    config = validate_any({"experiment": "toy"})
    return {finding.what: (finding.state, finding.text) for finding in doctor.examine(config, partition, gpus)}


def test_a_cluster_that_is_well_and_one_that_is_not(
    on_slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    well = told("normal")
    assert {state for state, _ in well.values()} <= {"ok", "note"}
    assert well["partition"] == ("ok", "normal: 2 nodes, time limit infinite, resources gpu:2")
    assert well["accounting"] == ("ok", "sacct answers")
    assert well["node"] == ("ok", "a job runs, sees this folder and this Python")
    assert not list(tmp_path.iterdir())

    missing = told("nowhere")
    assert missing["partition"] == ("mend", "there is no nowhere, expected one of normal, scavenger, urgent")
    on_slurm.ask("scontrol", "update", "partitionname=scavenger", "state=down")
    try:
        assert told("scavenger")["partition"] == ("mend", "scavenger is down, expected up")
    finally:
        on_slurm.ask("scontrol", "update", "partitionname=scavenger", "state=up")


def test_a_node_whose_gpu_torch_does_not_see(on_slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = told("urgent", gpus=1)
    assert found["node"][0] == "ok"
    if not torch.cuda.is_available():  # the nodes' GPUs are pretended
        state, text = found["node's GPU"]
        assert (state, text[:32]) == ("mend", "a job that asks for 1 sees 0: is")
