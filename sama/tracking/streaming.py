"""Curves on an HTTP server while a stage still runs. The server's troubles are none of the stage's.

A thread follows the stage's `metrics.jsonl`, which stays the truth, and sends what is new every few seconds, with what
the processor, the memory and the GPUs are doing. While the server is away it asks again, more and more seldom, and then
sends what has gathered; what never arrives is added by `mirror` at the end. A point keeps its time from its first
sending on, and MLflow takes the same point of the same time once: so a request whose answer was lost can be sent again.
A job that continues from a checkpoint continues its run, and leaves out what the run already has.
"""

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sama.tracking.mirroring import MOST_METRICS, SYSTEM, history
from sama.tracking.runs import FINGERPRINT, KEY, run_key
from sama.tracking.store import Server, experiment_id, server

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
SECONDS, LONGEST_WAIT, CLOSE_SECONDS = 2.0, 30.0, 10.0
SYSTEM_SECONDS, MOST_SAMPLES = 10.0, 20_000


def live(metrics: Path, cell: str, seed: int, content_hash: str) -> "Live | None":
    """Streaming of a stage's metrics, if MLFLOW_TRACKING_URI names an HTTP server and MLFLOW_EXPERIMENT_NAME is set."""
    place, experiment = server(), os.environ.get(EXPERIMENT)
    if place is None or not experiment:
        return None
    tags = {"sama.cell": cell, "sama.seed": str(seed), "sama.level": "seed"}
    return Live(place, experiment, run_key(experiment, cell, seed, content_hash), f"{cell} seed {seed}", tags, metrics)


class Live:
    """A run on `place` that follows the growing file `metrics`, from now until `close`.

    Args:
        place: the server.
        experiment: name of the experiment; made if needed.
        key, name, tags: of the run, as `mirror` will look for it.
        metrics: JSON lines `{"step": …, NAME: NUMBER, …}`.
    """

    def __init__(
        self, place: Server, experiment: str, key: str, name: str, tags: Mapping[str, str], metrics: Path
    ) -> None:
        self._place, self._experiment, self._key, self._name = place, experiment, key, name
        self._tags, self._path = {KEY: key, **tags}, metrics
        self._client: MlflowClient | None = None
        self._run_id, self._started = "", 0
        self._sent: set[tuple[str, int]] = set()  # points that an earlier job of the run has left there
        self._read = 0
        self._waiting: deque[Metric] = deque()
        self._samples: deque[Metric] = deque(maxlen=MOST_SAMPLES)
        self._monitors: list[Any] = []
        self._sampled = -SYSTEM_SECONDS
        self._told = False
        self._status = "RUNNING"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="sama-live", daemon=True)
        self._thread.start()

    def close(self, status: str) -> None:
        """Send what is left and set the run's status: FINISHED, FAILED or KILLED. Takes ten seconds at most."""
        self._status = status
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        wait = SECONDS
        while True:
            closing = self._closing.wait(wait)
            try:
                self._push()
                if closing and self._client is not None:
                    self._client.set_terminated(self._run_id, status=self._status)
                wait = SECONDS
            except Exception as error:
                self._tell(error)
                wait = min(2 * wait, LONGEST_WAIT)
            if closing:
                return

    def _push(self) -> None:
        if self._client is None:
            self._connect()
        self._read_on()
        self._sample()
        for queue in (self._waiting, self._samples):
            while queue:
                batch = list(islice(queue, MOST_METRICS))
                self._log(batch)
                for _ in batch:
                    queue.popleft()

    def _connect(self) -> None:
        """Find the run, or make it."""
        client = self._place.open()
        experiment = experiment_id(client, self._experiment)
        found = client.search_runs([experiment], f"tags.`{KEY}` = '{self._key}'", max_results=10)
        unfinished = [run for run in found if FINGERPRINT not in run.data.tags]
        if unfinished:
            self._run_id, self._started = unfinished[0].info.run_id, unfinished[0].info.start_time
            self._sent = {(name, step) for name, step, _ in history(client, unfinished[0])}
            client.update_run(self._run_id, status="RUNNING")
        else:
            made = client.create_run(experiment, run_name=self._name, tags=self._tags)
            self._run_id, self._started, self._sent = made.info.run_id, made.info.start_time, set()
        self._client = client

    def _read_on(self) -> None:
        """Queue the whole lines that the file has gained."""
        from mlflow.entities import Metric

        with self._path.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        moment = int(time.time() * 1000)
        for line in whole.splitlines():
            values = json.loads(line)
            step = values.pop("step")
            new = [name for name in values if (name, step) not in self._sent]
            self._waiting.extend(Metric(name, float(values[name]), moment, step) for name in new)

    def _sample(self) -> None:
        """Queue what the machine is doing, every SYSTEM_SECONDS."""
        from mlflow.entities import Metric

        now = time.monotonic()
        if now - self._sampled < SYSTEM_SECONDS:
            return
        if not self._monitors:
            self._monitors = _monitors()
        first, self._sampled = self._sampled < 0, now
        moment = int(time.time() * 1000)
        step = (moment - self._started) // 1000  # seconds since the run began
        for monitor in self._monitors:
            monitor.collect_metrics()
            values = monitor.aggregate_metrics()
            monitor.clear_metrics()
            if not first:  # rates need a sample before
                self._samples.extend(Metric(SYSTEM + name, value, moment, step) for name, value in values.items())

    def _log(self, batch: "list[Metric]") -> None:
        from mlflow.exceptions import MlflowException

        assert self._client is not None
        try:
            self._client.log_batch(self._run_id, metrics=batch)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # another database behind the address: begin anew there
                self._client, self._read = None, 0
                self._waiting.clear()
            raise

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            reason = " ".join(str(error).split())[:200]
            line = f"live curves: {self._place.uri} does not take them now ({reason}); metrics.jsonl keeps them"
            print(line, file=sys.stderr, flush=True)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    try:
        monitors.append(GPUMonitor())
    except Exception:
        return monitors
    return monitors
