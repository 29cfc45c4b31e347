"""Where MLflow keeps runs: a SQLite file of this folder, or an HTTP server that several machines write to."""

import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from sama.errors import SamaError
from sama.files import atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

ARTIFACT_SCHEME = "mlflow-artifacts"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # or the dashboard opens for language models
URI = "MLFLOW_TRACKING_URI"
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}  # or a dead server takes minutes


class Store(ABC):
    """A place of runs."""

    where: str
    hint: str

    @abstractmethod
    def open(self) -> "MlflowClient":
        """A client of it."""

    @abstractmethod
    def put(self, client: "MlflowClient", stored: "StoredRun", name: str, source: Path) -> None:
        """Keep a copy of the file `source` as the run's `name`."""

    @abstractmethod
    def delete(self, client: "MlflowClient", stored: "StoredRun") -> None:
        """Delete a run."""

    @contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn what MLflow and SQLite say into one line that names the place and what helps.

        Raises:
            SamaError: mlflow is not installed, or the place cannot be used.
        """
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        try:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            raise SamaError(f"tracking needs mlflow: pip install 'sama[pipeline]' ({error})") from error
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            raise SamaError(f"{self.where}: {self.hint.format(got=' '.join(str(error).split()))}") from error


class Database(Store):
    """The SQLite file `path`; files go below the folder `artifacts`, the server's `--artifacts-destination`."""

    def __init__(self, path: Path, artifacts: Path) -> None:
        self.path, self.artifacts = path, artifacts
        self.where = str(path)
        self.hint = (
            "expected a database that this version of MLflow can use, got: {got}; "
            f"`mlflow db upgrade {_sqlite(path)}` renews an older one; without the file and .mlflow/ it is made anew"
        )

    def open(self) -> "MlflowClient":
        """A client of the database, which is created first, whole, if there is none."""
        from mlflow import MlflowClient

        if not self.path.exists():
            with atomic(self.path) as temporary:
                # Killed in the middle of it, MLflow leaves tables that it takes for a damaged database.
                made = MlflowClient(_sqlite(temporary))
                made._tracking_client.store.engine.dispose()  # or something is left to write when the file is renamed
        return MlflowClient(_sqlite(self.path))

    def put(self, client: "MlflowClient", stored: "StoredRun", name: str, source: Path) -> None:
        """Copy it to where a server reads it."""
        target = self._folder(stored) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def delete(self, client: "MlflowClient", stored: "StoredRun") -> None:
        """Delete a run, its rows and its files. MLflow's own way (`mlflow gc`) cannot reach files without a server."""
        folder = self._folder(stored)
        if folder.parent.name == stored.info.run_id:
            shutil.rmtree(folder.parent, ignore_errors=True)
        if stored.info.lifecycle_stage == "active":
            client.delete_run(stored.info.run_id)
        store = client._tracking_client.store
        if hasattr(store, "_hard_delete_run"):
            store._hard_delete_run(stored.info.run_id)

    def _folder(self, stored: "StoredRun") -> Path:
        """Below `artifacts`, or a plain folder if the experiment is a user's."""
        parsed = urlparse(stored.info.artifact_uri)
        path = unquote(parsed.path)
        return self.artifacts / path.lstrip("/") if parsed.scheme == ARTIFACT_SCHEME else Path(path)


class Server(Store):
    """The server at an HTTP address. What is deleted there is hidden until somebody runs `mlflow gc`."""

    def __init__(self, uri: str) -> None:
        self.uri = self.where = uri
        self.hint = f"expected an MLflow server that answers ({URI}), got: {{got}}"

    def open(self) -> "MlflowClient":
        """A client that gives up soon."""
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def put(self, client: "MlflowClient", stored: "StoredRun", name: str, source: Path) -> None:
        """Send it, from a copy of that name if it has another."""
        folder, _, file = name.rpartition("/")
        with TemporaryDirectory() as temporary:
            copy = Path(shutil.copyfile(source, Path(temporary) / file))
            client.log_artifact(stored.info.run_id, str(copy), folder or None)

    def delete(self, client: "MlflowClient", stored: "StoredRun") -> None:
        """Mark it as deleted."""
        if stored.info.lifecycle_stage == "active":
            client.delete_run(stored.info.run_id)


def server() -> Server | None:
    """The HTTP server that MLFLOW_TRACKING_URI names; None if it names none."""
    uri = os.environ.get(URI, "")
    return Server(uri) if urlparse(uri).scheme in ("http", "https") else None


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Id of the experiment; it is created, or restored if someone deleted it in the dashboard."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A location without a path of this machine: the folder can be moved, and a server finds its files.
        location = f"{ARTIFACT_SCHEME}:/{name}"
        try:
            return client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
        except MlflowException:  # another job was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _sqlite(database: Path) -> str:
    return f"sqlite:///{database.resolve()}"
