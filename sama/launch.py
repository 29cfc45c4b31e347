"""Carry a stage through submitit; the only module that imports it.

The job runs the same command line as the rule would, in a process of its own, so a stage does not know who carried it.
Its owner is the launcher: however the launcher ends, the job ends with it.
"""

import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sama import cli, guard
from sama.errors import SamaError

POLL_SECONDS = 0.1
STOP_SECONDS = 5.0
NOTICE_SECONDS = 10


@dataclass(frozen=True)
class Resources:
    """What a job asks for. The local executor enforces the time limit and the choice of GPUs."""

    cpus: int
    gpus: int
    memory_mb: int | None
    timeout_minutes: float
    logs: Path


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
    signal.signal(signal.SIGTERM, _terminate)
    guard.hold_job_lock()
    guard.watch_owner()
    cli.limit_threads(arguments)
    devices = _devices(resources.gpus)
    import submitit

    resources.logs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{arguments[0]}-", dir=resources.logs))
    python = shlex.join([sys.executable, "-u", "-m", "sama.launch"])
    executor = submitit.LocalExecutor(folder, python=python)
    executor.update_parameters(
        timeout_min=resources.timeout_minutes, gpus_per_node=resources.gpus, signal_delay_s=NOTICE_SECONDS
    )
    os.environ.update(guard.own_environment(), SUBMITIT_LOG_LEVEL="CRITICAL")
    with _deaf():
        job: Any = executor.submit(
            StageJob(tuple(arguments), cli.STAGES[arguments[0]], devices, resources.timeout_minutes)
        )
    try:
        return _follow(job, arguments[0], resources.timeout_minutes)
    finally:
        _stop(job._process)


def _terminate(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _devices(gpus: int) -> str:
    """The first `gpus` of the GPUs that this process may see, as CUDA_VISIBLE_DEVICES writes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ",".join(map(str, range(gpus)))
    names = [name for name in visible.split(",") if name]
    if len(names) < gpus:
        raise SamaError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES={visible!r} allows {len(names)}")
    return ",".join(names[:gpus])


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold signals back while a job starts, so that none falls between its start and our knowing it.

    The processes started here ignore SIGINT for good: a Ctrl-C reaches the launcher alone, which ends the job in order.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending: list[int] = []
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, terminate)
    if pending:
        os.kill(os.getpid(), pending[0])


def _follow(job: Any, stage: str, timeout_minutes: float) -> int:
    """Copy the job's output as it comes until the job ends; the stage's own error line comes last."""
    start = time.monotonic()
    output = _Tail(job.paths.stdout, sys.stdout, stage)
    errors = _Tail(job.paths.stderr, sys.stderr, stage)
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


class _Tail:
    """Copies a growing log line by line; holds back the stage's one-line error."""

    def __init__(self, path: Path, target: Any, stage: str) -> None:
        self.path, self.target, self.prefix = path, target, f"sama {stage}: "
        self.held: list[str] = []
        self._read, self._rest = 0, b""

    def copy(self, last: bool) -> None:
        """Copy what is new; with `last`, an unfinished line too."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        self._read += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        if last and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            if line.startswith(self.prefix):
                self.held.append(line)
            else:
                print(line, file=self.target, flush=True)


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
