"""Carry a stage as a job of a Slurm cluster: submit it or join it, follow it, say how it ended.

Before anything is submitted, under a lock of the job's folder: a success whose outputs stand is the result; a job of
this name in the queue is joined; only else is one submitted. So a launcher may be killed at any moment, and called
again. What an instant between these could still let through, Slurm holds back: jobs of one name run one after the other
(`singleton`), and the later finds the result of the first.
"""

import fcntl
import math
import os
import shlex
import signal
import sys
import time
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
from sama.launch import job as jobs
from sama.launch import queue
from sama.launch.following import Resources, Tail, deaf, tell, terminate
from sama.launch.naming import Name, name_of

REQUEUES = 100
NOTICE_SECONDS = 90
LOG_SECONDS = 0.5
STATE_SECONDS = (1.0, 30.0)
RESULT_SECONDS = 5.0


def run_slurm(arguments: Sequence[str], resources: Resources) -> int:
    """Run `STAGE OPTIONS…` as a job of the cluster, stream its first task's output, return its exit code.

    SIGTERM and SIGINT cancel the job, and return when it is gone. If our owner dies, or we are killed, the job goes on.

    Raises:
        SamaError: Slurm refuses the job or cannot be asked.
    """
    signal.signal(signal.SIGTERM, terminate)
    guard.hold_job_lock()
    guard.watch_owner(orderly=False)
    cli.limit_threads(arguments)
    return _Launch(tuple(arguments), resources).run()


class _Launch:
    def __init__(self, arguments: tuple[str, ...], resources: Resources) -> None:
        self.arguments, self.resources = arguments, resources
        self.name: Name = name_of(arguments)
        self.folder = (resources.logs / self.name.stage / self.name.content).absolute()
        self.tasks = resources.nodes * resources.tasks_per_node
        self.job_id: str | None = None

    def run(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                if self._claim():
                    return 0
                code = self._follow()
                if code is not None:
                    return code
        except (KeyboardInterrupt, SystemExit):
            if self.job_id is not None:
                _cancel(self.job_id)
            raise

    def _claim(self) -> bool:
        """True: there is a result. Otherwise `job_id` is set: of a job in the queue, or of a new one."""
        self.job_id = None
        with _locked(self.folder / "lock"):
            with _locked(self.folder / "submitting"):
                pass  # a launcher that was killed may have left an sbatch on its way
            while True:
                if jobs.finished(self.folder, self.tasks):
                    tell(f"finished before, nothing to run [{self.folder}]")
                    return True
                queued = queue.ours()
                for other in queued:
                    if other.comment == self.name.place and other.name != self.name.job:
                        tell(f"job {other.job_id} ({other.name}) writes the same files from other inputs: cancelled")
                        _cancel(other.job_id)
                same = [each for each in queued if each.name == self.name.job]
                if all(each.state != "COMPLETING" for each in same):
                    break
                time.sleep(STATE_SECONDS[0])  # it ends, or is requeued
            if same:
                self.job_id = min(same, key=lambda each: int(each.job_id)).job_id
                tell(f"job {self.job_id} ({self.name.job}) is in the queue already: joined")
            else:
                self._submit()
        return False

    def _submit(self) -> None:
        wanted = self.resources
        minutes = max(1, math.ceil(wanted.timeout_minutes))
        notice = min(NOTICE_SECONDS, 15 * minutes)
        work = jobs.SlurmJob(
            self.arguments, cli.STAGES[self.arguments[0]], str(self.folder), self.tasks, 60 * minutes, notice
        )
        submission = DelayedSubmission(work)
        submission.set_timeout(minutes, REQUEUES)
        submission.dump(self.folder / jobs.SUBMISSION)
        executor = _Executor(self.folder, max_num_timeout=REQUEUES)
        executor.update_parameters(**_parameters(wanted, self.name, minutes, notice))
        with _cluster_environment(), deaf():
            try:
                self.job_id = executor.submit(work).job_id
            except (FailedJobError, FailedSubmissionError) as error:
                said = queue.last_line(str(error)).removeprefix("sbatch: ")
                raise SamaError(f"sbatch refused the job: {said}") from error
            facts = {"job": self.job_id, "name": self.name.job, "arguments": list(self.arguments)}
            write_json(self.folder / "job.json", facts)
        tell(f"job {self.job_id} ({self.name.job}) is submitted [{self.folder}]")

    def _follow(self) -> int | None:
        """Copy the first task's output until the job ends; its exit code, or None if it has to be run again."""
        job_id = str(self.job_id)
        outputs = [
            Tail(self.folder / f"{job_id}_0_log.{kind}", target, self.name.stage)
            for kind, target in (("out", sys.stdout), ("err", sys.stderr))
        ]
        state, outcomes = self._wait(job_id, outputs)
        self.job_id = None  # it has ended: there is nothing to cancel
        if all(isinstance(each, jobs.Outcome) and each.code == 0 for each in outcomes):
            return 0 if jobs.finished(self.folder, self.tasks) else None
        accounted = queue.account(job_id)
        if "PREEMPTED" in (state.state, accounted.partition(" ")[0]):
            tell(f"job {job_id} was preempted: another goes on from its checkpoint")
            return None
        code, log, said = self._failure(job_id, state, accounted, outcomes)
        tell(f"the log of job {job_id} is {log}")
        held = [line for output in outputs for line in output.held]
        lines = held if held and code and log.name == f"{job_id}_0_log.err" else [*held, said]
        for line in lines:
            print(line, file=sys.stderr, flush=True)
        return code or 1

    def _failure(self, job_id: str, state: queue.State, accounted: str, outcomes: list[Any]) -> tuple[int, Path, str]:
        """Exit code of the stage (0: it left none), log of the task that failed first, and a line that says why."""
        about = f"sama launch: job {job_id} ({self.name.stage})"
        logs = [self.folder / f"{job_id}_{task}_log.err" for task in range(self.tasks)]
        for outcome, log in zip(outcomes, logs, strict=True):
            if isinstance(outcome, jobs.Outcome) and outcome.code:
                return outcome.code, log, f"{about} failed: {queue.last_word(queue.tail(log))} [{log}]"
            if isinstance(outcome, str):
                return 0, log, f"{about} failed: {queue.last_word(outcome)} [{log}]"
        log = "".join(map(queue.tail, logs))
        why = queue.reason(state, accounted, log, self.resources.timeout_minutes, queue.memory(job_id))
        return 0, logs[0], f"{about} {why} [{logs[0]}]"

    def _wait(self, job_id: str, outputs: list[Tail]) -> tuple[queue.State, list[Any]]:
        """The job's last state, and what each of its tasks returned; None if it left nothing."""
        start = looked = time.monotonic()
        state, waits = queue.State(queue.UNKNOWN), False
        while True:
            now = time.monotonic()
            outcomes = jobs.outcomes_of(self.folder, job_id, self.tasks)
            every = min(max((now - start) / 10, STATE_SECONDS[0]), STATE_SECONDS[1])
            if None not in outcomes or now - looked >= every or state.state == queue.UNKNOWN:
                state, looked = queue.look(job_id), now
                if state.state == "PENDING" and not waits and state.restarts:
                    tell(f"job {job_id} was requeued and waits ({state.reason})")
                waits = state.state == "PENDING"
            for output in outputs:
                output.copy(last=state.final)
            if state.final:
                break
            time.sleep(LOG_SECONDS)
        end = time.monotonic() + RESULT_SECONDS
        while None in outcomes and time.monotonic() < end:  # a shared folder shows a new file late
            self.folder.chmod(self.folder.stat().st_mode)
            outcomes = jobs.outcomes_of(self.folder, job_id, self.tasks)
            time.sleep(LOG_SECONDS)
        for output in outputs:
            output.copy(last=True)
        return state, outcomes


class _Executor(submitit.SlurmExecutor):
    """submitit's, with our own process on the node."""

    @property
    def _submitit_command_str(self) -> str:
        return shlex.join([sys.executable, "-u", "-m", "sama.launch.job", str(self.folder)])

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        # while sbatch runs it holds this lock, whatever becomes of us
        return ["flock", str(self.folder / "submitting"), "sbatch", str(submission_file_path)]


def _parameters(wanted: Resources, name: Name, minutes: int, notice: int) -> dict[str, Any]:
    """What submitit writes at the head of the batch script."""
    further = {}
    for each in wanted.slurm:
        key, equals, value = each.partition("=")
        further[key.lstrip("-").replace("-", "_")] = value if equals else True
    given = {
        "job_name": name.job,
        "comment": name.place,
        "dependency": "singleton",
        "time": minutes,
        "signal_delay_s": notice,
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _cancel(job_id: str) -> None:
    """Cancel a job and wait until it is gone; a second SIGINT does not wait."""
    queue.cancel(job_id)
    while not queue.look(job_id).final:
        time.sleep(STATE_SECONDS[0] / 4)
