"""What is said of a job that Slurm does not take, and what of a job's result counts."""

import pickle
import shutil
from pathlib import Path

import pytest

from sama.files import sha256
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


def test_a_deleted_result_is_put_back_and_an_edited_one_counts_for_nothing(tmp_path: Path) -> None:
    one, two, kept = tmp_path / "results" / "one", tmp_path / "results" / "two", tmp_path / jobs.KEPT
    one.parent.mkdir()
    outcome = jobs.Outcome(0, {str(path): sha256(path) for path in (one, two) if path.write_text(path.name)})
    (tmp_path / "7_0_result.pkl").write_bytes(pickle.dumps(("success", outcome)))
    jobs._keep(outcome, kept)
    shutil.rmtree(one.parent)
    assert jobs.finished(tmp_path, 1) == outcome
    assert (one.read_text(), two.read_text()) == ("one", "two")
    one.write_text("edited")
    assert jobs.finished(tmp_path, 1) is None
    one.unlink()
    shutil.rmtree(kept)
    assert jobs.finished(tmp_path, 1) is None


@pytest.mark.parametrize("left", [b"", b"\x80\x05torn", pickle.dumps(("success", None))[:-1], b"cno.such\nmodule\n."])
def test_a_torn_result_is_none(tmp_path: Path, left: bytes) -> None:
    whole = jobs.Outcome(0, {})
    (tmp_path / "7_0_result.pkl").write_bytes(left)
    (tmp_path / "8_0_result.pkl").write_bytes(pickle.dumps(("success", whole)))
    assert jobs.outcomes_of(tmp_path, "7", 2) == [None, None]
    assert jobs.finished(tmp_path, 1) == whole
