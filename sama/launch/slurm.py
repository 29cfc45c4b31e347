"""Carry a stage as a job of a Slurm cluster: submit it or join it, follow it, say how it ended.

Before anything is submitted, under a lock of the job's folder: a success whose outputs stand is the result; a job of
this name in the queue is joined; only else is one submitted, by itself or with others in an array (`arrays`). So a
launcher may be killed at any moment, and called again. What an instant between these could still let through, Slurm
holds back: jobs of one name run one after the other (`singleton`), and the later finds the result of the first.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sama import cli, guard
from sama.errors import SamaError
from sama.launch import arrays, queue
from sama.launch import job as jobs
from sama.launch.following import Resources, Tail, deaf, tell, terminate
from sama.launch.naming import Name, name_of
from sama.launch.retries import Failure, Retries

LOG_SECONDS = 0.5
STATE_SECONDS = (1.0, 30.0)
RESULT_SECONDS = 5.0
GATHER_SECONDS = (1.0, 15.0)  # an array is submitted when so long no cell has come, or after the longest


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
        self.resources = resources
        self.name: Name = name_of(arguments)
        self.logs = resources.logs.absolute()
        self.folder = self.logs / self.name.stage / self.name.content
        self.cell = arrays.Cell(str(self.folder), self.name.job, self.name.place, arguments)
        self.tasks = resources.nodes * resources.tasks_per_node
        self.retries = Retries(resources)
        self.job_id: str | None = None
        self.failed = ""  # what became of the job before this one

    def run(self) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                code = 0 if self._claim() else self._follow()
                if code == 0:
                    shutil.rmtree(self.folder / jobs.KEPT, ignore_errors=True)
                if code is not None:
                    return code
        except SamaError as error:  # the reason is that failure, not that it could not be tried again
            raise SamaError(f"{self.failed}; not tried again: {error}" if self.failed else str(error)) from error
        except (KeyboardInterrupt, SystemExit):
            if self.job_id is not None:
                _cancel(self.job_id)
            raise

    def _claim(self) -> bool:
        """True: there is a result. Otherwise `job_id` is set: of a job in the queue, or of a new one."""
        self.job_id = None
        with arrays.locked(self.folder / "lock"):
            with arrays.locked(self.folder / "submitting"), arrays.at_rest(self.logs):
                pass  # a launcher that was killed may have left an sbatch on its way
            finished = self._found()
            if finished or self.job_id is not None:
                return finished
            if self.resources.array_limit:
                return self._claim_in_array()
            self._submit()
        return False

    def _found(self) -> bool:
        """True: there is a result. Otherwise `job_id` is set if a job is queued. What is in its way is cancelled."""
        while True:
            if jobs.finished(self.folder, self.tasks):
                tell(f"finished before, nothing to run [{self.folder}]")
                return True
            queued = self.queued = arrays.known(queue.ours())
            for other in queued:
                if other.comment == self.name.place and other.name != self.name.job:
                    tell(f"job {other.job_id} ({other.name}) writes the same files from other inputs: cancelled")
                    _cancel(other.job_id)
            same = [each for each in queued if each.name == self.name.job]
            if all(each.state != "COMPLETING" for each in same):
                break
            time.sleep(STATE_SECONDS[0])  # it ends, or is requeued
        if same:
            self.job_id = min(same, key=lambda each: [int(part) for part in each.job_id.split("_")]).job_id
            tell(f"job {self.job_id} ({self.name.job}) is in the queue already: joined")
        return False

    def _submit(self) -> None:
        from sama.launch import submission

        with deaf():
            self.job_id = submission.submit(self.cell, self.resources)
        tell(f"job {self.job_id} ({self.name.job}) is submitted [{self.folder}]")

    def _claim_in_array(self) -> bool:
        """As `_claim`: the launcher whose turn it is submits what waits, as one array."""
        group = arrays.group_of(self.name.stage, self.resources)
        start, before, finished = time.monotonic(), [], False
        with self._ticket(group), group.turn() as ours:
            while True:
                with arrays.at_rest(self.logs):
                    self.job_id = self.cell.answer()
                    if self.job_id is not None:
                        tell(f"job {self.job_id} ({self.name.job}) is submitted [{self.folder}]")
                    elif ours():  # what is said in the queue may have changed since we looked
                        finished = self._found()
                        if not finished and self.job_id is None:
                            waiting = group.waiting()
                            if waiting == before or time.monotonic() - start > GATHER_SECONDS[1]:
                                self._submit_array(group, group.fitting(self.cell, waiting, self.queued))
                            before = waiting
                if finished or self.job_id is not None:
                    return finished
                time.sleep(GATHER_SECONDS[0])

    def _submit_array(self, group: arrays.Group, cells: list[arrays.Cell]) -> None:
        """Submit the cells, of which ours is the first; without room there are none."""
        from sama.launch import submission

        if not cells:
            return
        with deaf():
            tasks = submission.submit_array(group, cells, self.resources)
            self.job_id = tasks[0]
        tell(f"job array {self.job_id.partition('_')[0]} of {len(cells)} is submitted, {group.limit} at a time at most")

    @contextmanager
    def _ticket(self, group: arrays.Group) -> Iterator[None]:
        """The ticket of our cell; interrupted, it is taken back, or `job_id` is set to what was made of it."""
        with group.ticket(self.cell):
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                with arrays.at_rest(self.logs):  # nobody submits now
                    same = [each for each in arrays.known(queue.ours()) if each.name == self.name.job]
                    self.job_id = self.job_id or self.cell.answer() or (same[0].job_id if same else None)
                    group.withdraw(self.cell)
                raise

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
        failure = self._failure(job_id, state, accounted, outcomes)
        again = self.retries.take(failure.kind, self.resources)
        if again is not None:
            more = "" if again == self.resources else f" with {again.memory_mb} MB"
            self.failed = f"job {job_id} ({self.name.stage}) {failure.said} [{failure.log}]"
            tell(f"job {job_id} ({self.name.stage}) {failure.said}; another goes on{more} [{failure.log}]")
            self.resources = again
            return None
        tell(f"the log of job {job_id} is {failure.log}")
        held = [line for output in outputs for line in output.held]
        for line in held:
            print(line, file=sys.stderr, flush=True)
        if not (held and failure.code and failure.log.name == f"{job_id}_0_log.err"):
            tell(f"job {job_id} ({self.name.stage}) {failure.said} [{failure.log}]")
        return failure.code or 1

    def _failure(self, job_id: str, state: queue.State, accounted: str, outcomes: list[Any]) -> Failure:
        """Why there is no result, by the task that failed first."""
        logs = [self.folder / f"{job_id}_{task}_log.err" for task in range(self.tasks)]
        for outcome, log in zip(outcomes, logs, strict=True):
            if isinstance(outcome, jobs.Outcome) and outcome.code:
                return Failure("exception", outcome.code, log, f"failed: {queue.last_word(queue.tail(log))}")
            if isinstance(outcome, str):
                return Failure("exception", 0, log, f"failed: {queue.last_word(outcome)}")
        said, used = "".join(map(queue.tail, logs)), queue.memory(job_id)
        why = queue.reason(state, accounted, said, self.resources.timeout_minutes, used)
        return Failure(queue.kind_of_failure(state, accounted, said, used), 0, logs[0], why)

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


def _cancel(job_id: str) -> None:
    """Cancel a job and wait until it is gone; a second SIGINT does not wait."""
    queue.cancel(job_id)
    while not queue.look(job_id).final:
        time.sleep(STATE_SECONDS[0] / 4)
