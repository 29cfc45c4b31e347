"""Hand jobs to Slurm, through submitit: the batch script, the pickle that the job finds, sbatch.

While sbatch runs it holds a lock of the kernel, whatever becomes of the launcher: whoever has that lock sees in the
queue all that was submitted. To wait takes nothing from here: a launcher that submits nothing imports no submitit.
"""

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from sama import cli, guard
from sama.errors import SamaError
from sama.files import write_json
from sama.launch import arrays
from sama.launch import job as jobs
from sama.launch.following import Resources

REQUEUES = 100
NOTICE_SECONDS = 90


def minutes_of(wanted: Resources) -> int:
    """The time limit, as Slurm takes it."""
    return max(1, math.ceil(wanted.timeout_minutes))


def parameters(wanted: Resources) -> dict[str, Any]:
    """What submitit writes at the head of the batch script, without the job's name and place."""
    further = {}
    for each in wanted.slurm:
        key, equals, value = each.partition("=")
        further[key.lstrip("-").replace("-", "_")] = value if equals else True
    given = {
        "time": minutes_of(wanted),
        "signal_delay_s": _notice(wanted),
        "nodes": wanted.nodes,
        "ntasks_per_node": wanted.tasks_per_node,
        "cpus_per_task": wanted.cpus,
        "gpus_per_node": wanted.gpus or None,
        "mem": None if wanted.memory_mb is None else f"{wanted.memory_mb}M",
        "partition": wanted.partition,
        "account": wanted.account,
        # srun does not take the first over from sbatch; a task that fails ends the others, which may wait for it
        "srun_args": [f"--cpus-per-task={wanted.cpus}", "--kill-on-bad-exit=1"],
        "additional_parameters": further,
    }
    return {key: value for key, value in given.items() if value is not None}


def submit(cell: arrays.Cell, wanted: Resources) -> str:
    """Submit the cell as a job of its own; its id.

    Raises:
        SamaError: sbatch refuses it.
    """
    _prepare(cell, wanted)
    # jobs of one name run one after the other
    named = {"job_name": cell.name, "comment": cell.place, "dependency": "singleton"}
    job_id = _sbatch(Path(cell.folder), Path(cell.folder, "submitting"), {**parameters(wanted), **named})
    _note(cell, job_id)
    return job_id


def submit_array(group: arrays.Group, cells: Sequence[arrays.Cell], wanted: Resources) -> list[str]:
    """Submit the cells as one array, and tell their launchers; the ids of its tasks, in order.

    Raises:
        SamaError: sbatch refuses it.
    """
    for cell in cells:
        _prepare(cell, wanted)
    array = group.pack(cells)
    given = arrays.settings(array, len(cells), group, parameters(wanted))
    array_id = _sbatch(array, group.folder.parent / arrays.SUBMITTING, given)
    tasks = [f"{array_id}_{index}" for index in range(len(cells))]
    for cell, task in zip(cells, tasks, strict=True):
        cell.tell(task)
        _note(cell, task)
    return tasks


class _Executor(submitit.SlurmExecutor):
    """submitit's, with our own process on the node."""

    def __init__(self, folder: Path, submitting: Path) -> None:
        super().__init__(folder, max_num_timeout=REQUEUES)
        self.submitting = submitting

    @property
    def _submitit_command_str(self) -> str:
        return shlex.join([sys.executable, "-u", "-m", "sama.launch.job", str(self.folder)])

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["flock", str(self.submitting), "sbatch", str(submission_file_path)]


def _prepare(cell: arrays.Cell, wanted: Resources) -> None:
    """Leave the pickle where the job looks for it."""
    minutes, tasks = minutes_of(wanted), wanted.nodes * wanted.tasks_per_node
    stage = cli.STAGES[cell.arguments[0]]
    work = jobs.SlurmJob(cell.arguments, stage, cell.folder, tasks, 60 * minutes, _notice(wanted))
    submission = DelayedSubmission(work)
    submission.set_timeout(minutes, REQUEUES)
    submission.dump(Path(cell.folder, jobs.SUBMISSION))


def _notice(wanted: Resources) -> int:
    return min(NOTICE_SECONDS, 15 * minutes_of(wanted))


def _sbatch(folder: Path, submitting: Path, given: dict[str, Any]) -> str:
    executor = _Executor(folder, submitting)
    executor.update_parameters(**given)
    with _cluster_environment():
        try:
            return executor._submit_command(executor._submitit_command_str).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            raise SamaError(f"sbatch refused the job: {refusal(str(error))}") from error


def refusal(said: str) -> str:
    """What sbatch says, in one line: its last one is the general case, the ones before it name what is wrong."""
    lines = [re.sub(r"^sbatch: (error: )?", "", line.strip()) for line in said.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines)) or "no reason given"


def _note(cell: arrays.Cell, job_id: str) -> None:
    facts = {"job": job_id, "name": cell.name, "arguments": list(cell.arguments)}
    write_json(Path(cell.folder, "job.json"), facts)


@contextmanager
def _cluster_environment() -> Iterator[None]:
    """The environment that a job gets: nothing of a job that we run in ourselves, and no owner."""
    kept = {key: os.environ[key] for key in ("SLURM_CONF",) if key in os.environ}
    owner = os.environ.pop(guard.OWNER, None)
    try:
        with clean_env():
            os.environ.update(kept)
            yield
    finally:
        if owner is not None:
            os.environ[guard.OWNER] = owner
