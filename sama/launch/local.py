"""Carry a stage through submitit's local executor.

The job's owner is the launcher: however the launcher ends, the job ends with it.
"""

import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sama import cli, guard
from sama.errors import SamaError
from sama.launch.following import Resources, Tail, deaf, terminate

POLL_SECONDS = 0.1
STOP_SECONDS = 5.0
NOTICE_SECONDS = 10


@dataclass(frozen=True)
class StageJob:
    """What submitit pickles: a stage's command line, and where this launcher found the stage."""

    arguments: tuple[str, ...]
    stage: cli.Stage
    devices: str
    timeout_minutes: float

    def __call__(self) -> int:
        """Run the stage in the job's process; returns its exit code."""
        os.environ["CUDA_VISIBLE_DEVICES"] = self.devices
        cli.STAGES[self.arguments[0]] = self.stage
        signal.signal(signal.SIGUSR2, self._out_of_time)
        return cli.run(self.arguments)

    def _out_of_time(self, number: int, frame: object) -> NoReturn:
        raise SamaError(f"the job reached its time limit of {self.timeout_minutes:g} minutes")


def run_local(arguments: Sequence[str], resources: Resources) -> int:
    """Run `STAGE OPTIONS…` as a job of submitit's local executor, stream its output, return its exit code.

    SIGTERM and SIGINT cancel the job, and return when it is gone.
    """
    signal.signal(signal.SIGTERM, terminate)
    guard.hold_job_lock()
    guard.watch_owner()
    cli.limit_threads(arguments)
    devices = _devices(resources.gpus)
    import submitit

    resources.logs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{arguments[0]}-", dir=resources.logs))
    python = shlex.join([sys.executable, "-u", "-m", "sama.launch.local"])
    executor = submitit.LocalExecutor(folder, python=python)
    executor.update_parameters(
        timeout_min=resources.timeout_minutes, gpus_per_node=resources.gpus, signal_delay_s=NOTICE_SECONDS
    )
    os.environ.update(guard.own_environment(), SUBMITIT_LOG_LEVEL="CRITICAL")
    with deaf():
        job: Any = executor.submit(
            StageJob(tuple(arguments), cli.STAGES[arguments[0]], devices, resources.timeout_minutes)
        )
    try:
        return _follow(job, arguments[0], resources.timeout_minutes)
    finally:
        _stop(job._process)


def _devices(gpus: int) -> str:
    """The first `gpus` of the GPUs that this process may see, as CUDA_VISIBLE_DEVICES writes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ",".join(map(str, range(gpus)))
    names = [name for name in visible.split(",") if name]
    if len(names) < gpus:
        raise SamaError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES={visible!r} allows {len(names)}")
    return ",".join(names[:gpus])


def _follow(job: Any, stage: str, timeout_minutes: float) -> int:
    """Copy the job's output as it comes until the job ends; the stage's own error line comes last."""
    start = time.monotonic()
    output = Tail(job.paths.stdout, sys.stdout, stage)
    errors = Tail(job.paths.stderr, sys.stderr, stage)
    while True:
        ended = job._process.poll() is not None
        output.copy(last=ended)
        errors.copy(last=ended)
        if ended:
            break
        time.sleep(POLL_SECONDS)
    code, reason = _outcome(job)
    if code == 0:
        return 0
    print(f"sama launch: the log of job {job.job_id} is {job.paths.stderr}", file=sys.stderr)
    if code is None:
        if time.monotonic() - start >= 60 * timeout_minutes:
            reason = f"killed at its time limit of {timeout_minutes:g} minutes"
        errors.held.append(f"sama launch: job {job.job_id} ({stage}) {reason}")
    for line in output.held + errors.held:
        print(line, file=sys.stderr, flush=True)
    return code or 1


def _outcome(job: Any) -> tuple[int | None, str]:
    """The exit code that the job returned, or None and what became of it."""
    from submitit.core.utils import pickle_load

    if not job.paths.result_pickle.exists():
        return None, "was killed from outside (out of memory, or a signal) and left no result"
    outcome, value = pickle_load(job.paths.result_pickle)
    if outcome == "success":
        return int(value), ""
    return None, f"failed: {str(value).strip().splitlines()[-1]}"


def _stop(process: Any) -> None:
    """End the job's controller and its task: SIGTERM, which it forwards, then SIGKILL to all that is left."""
    if process is None or process.poll() is not None:
        return
    below = [guard.identity(pid) for pid in guard.descendants(process.pid)]
    process.terminate()
    end = time.monotonic() + STOP_SECONDS
    while (process.poll() is None or any(map(guard.alive, below))) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in [*guard.descendants(process.pid), *(int(each.partition(":")[0]) for each in below if guard.alive(each))]:
        guard.kill(pid)
    process.kill()
    process.wait()


def _job_process() -> None:
    """The job's process: watched from its first moment, before submitit waits for its pickle."""
    guard.hold_job_lock()
    guard.watch_owner()
    from submitit.core.submission import submitit_main

    sys.argv = ["submitit", sys.argv[-1]]
    submitit_main()


if __name__ == "__main__":
    _job_process()
