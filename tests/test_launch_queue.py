"""Why a job ended, from what Slurm says of it in its several places; the real Slurm is in tests/cluster."""

from pathlib import Path

import pytest

from sama.errors import SamaError
from sama.launch import queue
from sama.launch.queue import Memory, State

CGROUP = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed.\n"


@pytest.mark.parametrize(
    ("state", "accounted", "log", "used", "says"),
    [
        (State("OUT_OF_MEMORY", "0:125"), "", "", Memory(), "ran out of memory"),
        (State("FAILED", "0:125"), "", "", Memory(), "ran out of memory"),
        (State("GONE"), "OUT_OF_MEMORY", "", Memory(), "ran out of memory"),
        (State("FAILED", "137:0"), "", CGROUP, Memory(), "ran out of memory"),
        (State("FAILED", "1:0"), "", "srun: error: n1: task 3: Out Of Memory\n", Memory(), "ran out of memory"),
        (
            State("FAILED", "137:0"),
            "",
            "",
            Memory(412.0, 400.0),
            "ran out of memory (it was seen with 412 of the 400 MB",
        ),
        (State("CANCELLED", "0:9"), "", "", Memory(10.0, 400.0, ran_out=True), "ran out of memory"),
        (
            State("FAILED", "137:0"),
            "",
            "a text about a machine out of memory\n",
            Memory(93.0, 400.0),
            "was killed by signal 9: out of memory, if nobody killed it, which Slurm does not say (it",
        ),
        (State("FAILED", "9:0"), "", "", Memory(), "(the accounting does not say how much memory it held)"),
        (State("TIMEOUT", "0:15"), "", "", Memory(390.0, 400.0), "reached its time limit of 5 minutes"),
        (State("NODE_FAIL", nodes="n7"), "", "", Memory(), "lost its node (n7) and was not requeued"),
        (State("CANCELLED"), "CANCELLED by 0", "", Memory(), "was cancelled by root"),
        (State("CANCELLED"), "", "", Memory(), "was cancelled by somebody: the accounting does not say whom"),
        (State("FAILED", "2:0", "NonZeroExitCode"), "", "", Memory(), "(exit code 2:0, NonZeroExitCode)"),
    ],
)
def test_each_end_has_its_reason(state: State, accounted: str, log: str, used: Memory, says: str) -> None:
    said = queue.reason(state, accounted, log, 5, used)
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("FAILED|9:0||200M\nFAILED|9:0|12.03M|\nCANCELLED|0:9|92.75M|", Memory(92.75, 200.0)),
        ("FAILED|0:0||200Mn\nOUT_OF_MEMORY|0:125|198M|", Memory(198.0, 200.0, ran_out=True)),
        ("FAILED|9:0||", Memory()),
        ("", Memory()),
    ],
)
def test_memory_is_read_from_the_accounting(
    answer: str, expected: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "sacct"
    program.write_text(f"#!/bin/sh\nprintf '{answer}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert queue.memory("7") == expected
    program.write_text("#!/bin/sh\necho 'FAILED|9:0|1M|2M'; exit 1\n")
    assert queue.memory("7") == Memory()


def test_a_queue_that_cannot_be_read_for_a_moment_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "squeue"
    asked = tmp_path / "asked"
    third = f"echo >> {asked}; [ $(wc -l < {asked}) -ge 3 ] || {{ echo no controller >&2; exit 1; }}"
    program.write_text(f"#!/bin/sh\n{third}\necho '7|2|RUNNING|name|place'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(queue, "PAUSES", (0.01, 0.01))
    assert queue.ours() == [queue.Queued("7_2", "RUNNING", "name", "place")]
    asked.unlink()
    monkeypatch.setattr(queue, "PAUSES", (0.01,))
    with pytest.raises(SamaError, match=r"squeue: the queue cannot be read \(no controller\)"):
        queue.ours()
