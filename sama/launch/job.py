"""What runs on a node of the cluster: the stage's command line, resumable, and what it leaves behind.

A job belongs to no process of the machine that submitted it: it watches no owner and holds no lock of the folder. Asked
to stop (USR2, before the time limit or a preemption), it writes a checkpoint after the next training step, or keeps the
last one if there is no such step in time, and is requeued by submitit with the same command line.
"""

import importlib
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sama import cli, files, guard, interruption
from sama.launch.naming import OUTPUTS, options

SUBMISSION = "submission.pkl"
KEPT = "kept"  # links to the results of a job, by their hashes, until a launcher has seen them
_code = 0


@dataclass(frozen=True)
class Outcome:
    """What a task leaves: its exit code, and the files that it wrote with their hashes."""

    code: int
    outputs: dict[str, str]


@dataclass(frozen=True)
class SlurmJob:
    """What submitit pickles.

    Attributes:
        arguments: `STAGE OPTIONS…`.
        stage: where the launcher found the stage.
        folder: of the job.
        tasks: how many there are.
        seconds: its time limit. notice: how long before it the signal comes, or earlier (Slurm is coarse), in seconds.
    """

    arguments: tuple[str, ...]
    stage: cli.Stage
    folder: str
    tasks: int
    seconds: float
    notice: float

    def __call__(self) -> Outcome:
        """Run the stage in this task."""
        global _code
        earlier = finished(Path(self.folder), self.tasks)
        if earlier:  # a second job of this name, which had to wait for the first
            return earlier
        from submitit import JobEnvironment

        environment = JobEnvironment()
        environment.paths.result_pickle.unlink(missing_ok=True)  # of a run before the requeue
        if self.tasks > 1:
            from submitit.helpers import TorchDistributedEnvironment

            TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        cli.STAGES[self.arguments[0]] = self.stage
        if self.tasks > 1 and not hasattr(importlib.import_module(self.stage.module), "processes"):
            # a stage that knows nothing of several processes runs in the first alone
            if environment.global_rank:
                return Outcome(0, {})
            text = f"{self.arguments[0]} is the work of one process: the others have nothing to do"
            print(f"sama launch: {text}", file=sys.stderr, flush=True)
        with self._stoppable() as requeue:
            try:
                _code = cli.run(self.arguments)
            except interruption.Interrupted:
                requeue()
        outcome = Outcome(_code, {str(path): files.sha256(path) for path in self._outputs()})
        if _code == 0:
            _keep(outcome, Path(self.folder, KEPT))
        return outcome

    def _outputs(self) -> set[Path]:
        named = (Path(value) for option, value in options(self.arguments[1:]) if option in OUTPUTS)
        return {*files.written(), *(path for path in named if path.is_file())}

    def checkpoint(self) -> Any:
        """The same again: the stage itself knows where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    @contextmanager
    def _stoppable(self) -> Iterator[Any]:
        """Answer USR2 by asking the stage to stop; what is yielded requeues the job and does not return."""
        submitit: Any = signal.getsignal(signal.SIGUSR2)
        last = time.monotonic() + self.seconds - self.notice / 2

        def requeue(number: int = signal.SIGUSR2, frame: Any = None) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the requeue sends it, and we are leaving
            submitit(signal.SIGUSR2, frame)  # of the tasks only the first comes back from it by leaving
            while True:
                time.sleep(60)

        def ask(number: int, frame: Any) -> None:
            print("sama launch: asked to stop: requeued after a checkpoint", file=sys.stderr, flush=True)
            interruption.request()
            # without a step until then it is requeued as it is; one that is preempted Slurm kills before, and requeues
            signal.setitimer(signal.ITIMER_REAL, max(last - time.monotonic(), 1))

        signal.signal(signal.SIGALRM, requeue)
        signal.signal(signal.SIGUSR2, ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        try:
            yield requeue
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # done: what is left is to say so


def finished(folder: Path, tasks: int) -> Outcome | None:
    """The outcome of a job in this folder of which every task succeeded and whose outputs still stand; None without."""
    for first in sorted(folder.glob("*_0_result.pkl")):
        outcomes = outcomes_of(folder, first.name.removesuffix("_0_result.pkl"), tasks)
        kept = folder / KEPT
        if all(isinstance(each, Outcome) and each.code == 0 and _stand(each, kept) for each in outcomes):
            return outcomes[0]
    return None


def outcomes_of(folder: Path, job_id: str, tasks: int) -> list[Any]:
    """For each task of a job what it returned, or its traceback; None while it has not ended, or if that is torn."""
    return [_outcome(folder / f"{job_id}_{task}_result.pkl") for task in range(tasks)]


def _outcome(path: Path) -> Any:
    try:
        return pickle.loads(path.read_bytes())[1]
    except FileNotFoundError:
        return None
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, ValueError):
        return None  # a lost disk or node left it so, or another version of ours wrote it: no proof of a result


def _keep(outcome: Outcome, kept: Path) -> None:
    """Link the results: Snakemake deletes those of a job whose end it did not live to see, before it asks again."""
    for path, was in outcome.outputs.items():
        with suppress(OSError):  # it is there already, or cannot be linked: then the job would run again
            kept.mkdir(exist_ok=True)
            (kept / was).hardlink_to(path)


def _stand(outcome: Outcome, kept: Path) -> bool:
    return all(_stands(Path(path), was, kept / was) for path, was in outcome.outputs.items())


def _stands(path: Path, was: str, link: Path) -> bool:
    """Whether the file is as the job left it; a missing one is put back if it can be."""
    if path.exists() or not link.exists():
        return path.is_file() and files.sha256(path) == was
    if files.sha256(link) != was:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    files.copy(link, path)
    return True


def main() -> None:
    """The task's process. USR2 waits until somebody can answer it: unanswered, it would kill."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    guard.detach()
    os.environ["SUBMITIT_LOG_LEVEL"] = "CRITICAL"
    folder, job_id = _own(Path(sys.argv[-1]))
    _take_submission(folder, job_id)
    from submitit.core.submission import submitit_main

    sys.argv = ["submitit", str(folder)]
    submitit_main()
    sys.exit(_code)  # the job's state in Slurm is the stage's


def _own(folder: Path) -> tuple[Path, str]:
    """The job's folder and id; an array's has for each task a link to the folder of its cell."""
    index = os.environ.get("SLURM_ARRAY_TASK_ID")
    if index is None:
        return folder, os.environ["SLURM_JOB_ID"]
    return (folder / index).resolve(), f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}"


def _take_submission(folder: Path, job_id: str) -> None:
    """Put the pickle where submitit looks for it; the launcher does so too, unless it was killed before it could."""
    target = folder / f"{job_id}_submitted.pkl"
    if not target.exists():
        own = folder / f".{job_id}_{os.environ.get('SLURM_PROCID', '0')}.pkl"
        shutil.copyfile(folder / SUBMISSION, own)
        own.replace(target)


if __name__ == "__main__":  # under its own name, so that what is pickled is found
    from sama.launch import job

    job.main()
