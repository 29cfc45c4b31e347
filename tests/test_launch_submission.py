"""What is said of a job that Slurm does not take, and what of a job's result counts."""

import pickle
from pathlib import Path

import pytest

from sama.launch import job as jobs
from sama.launch.submission import refusal


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "sbatch: error: invalid partition: gpus\nsbatch: error: Batch job submission failed: Invalid name\n",
            "invalid partition: gpus; Batch job submission failed: Invalid name",
        ),
        ("sbatch: unrecognized option '--qso=x'\nTry help\n", "unrecognized option '--qso=x'; Try help"),
        ("sbatch: error: twice\nsbatch: error: twice\n", "twice"),
        ("", "no reason given"),
    ],
)
def test_a_refusal_names_its_cause(said: str, line: str) -> None:
    assert refusal(said) == line


@pytest.mark.parametrize("left", [b"", b"\x80\x05torn", pickle.dumps(("success", None))[:-1], b"cno.such\nmodule\n."])
def test_a_torn_result_is_none(tmp_path: Path, left: bytes) -> None:
    whole = jobs.Outcome(0, {})
    (tmp_path / "7_0_result.pkl").write_bytes(left)
    (tmp_path / "8_0_result.pkl").write_bytes(pickle.dumps(("success", whole)))
    assert jobs.outcomes_of(tmp_path, "7", 2) == [None, None]
    assert jobs.finished(tmp_path, 1) == whole
