"""A real MLflow server on a free port of this machine, which tests may kill."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import psutil

from tests.toy_pipeline import tree


class TrackingServer:
    """The server of `folder/mlflow.db`, as `make ui` starts it, with further `options`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.options, self.log = folder, options, folder / "server.log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", "sqlite:///mlflow.db", "--workers", "1"]
        command += [*self.options, "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"no answer from {self.uri}:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it and its children at once, by their ids."""
        if self.process is None:
            return
        for process in tree(self.process.pid) if self.process.poll() is None else []:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        self.process = None
