"""The MLflow database as a mirror of result files. The only module that imports mlflow, and only once it is needed.

A run in the database stands for one training (a cell and a seed) or for a group of them. Two tags say which and how
fresh: `sama.key` names what the run stands for (`run_key`; live streaming uses the same), `sama.fingerprint` is the
hash of everything that is written into it before it is marked as finished. So `mirror` can be repeated at any time: a
finished run with the right key and fingerprint is kept; one that is missing, unfinished or different is written anew;
others are deleted for good.
Runs without `sama.key` (a user's own) are never touched.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from sama.errors import SamaError
from sama.files import atomic, sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

KEY = "sama.key"
FINGERPRINT = "sama.fingerprint"
PARENT = "mlflow.parentRunId"
ARTIFACT_SCHEME = "mlflow-artifacts"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # or the dashboard opens for language models
MOST_METRICS, MOST_PARAMS = 900, 100  # in one call: MLflow takes 1000 entries, 100 of them params
LONGEST_PARAM = 6000
LONGEST_DIGEST = 36


@dataclass(frozen=True)
class DataSet:
    """The examples that a run learned from, for MLflow's list of inputs."""

    name: str
    digest: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run as it shall stand in the database. `parent` is the key of the run it is shown below."""

    key: str
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[tuple[int, Mapping[str, float]]] = ()
    data_set: DataSet | None = None
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    parent: str | None = None

    def fingerprint(self) -> str:
        """Hash of all that `mirror` writes, artifacts by content; the parent counts not, it is set apart."""
        facts = {
            "name": self.name,
            "tags": dict(self.tags),
            "params": dict(self.params),
            "metrics": [[step, dict(values)] for step, values in self.metrics],
            "data_set": asdict(self.data_set) if self.data_set else None,
            "artifacts": sorted(self.artifacts),
        }
        files = [self.artifacts[name] for name in sorted(self.artifacts)]
        return sha256(json.dumps(facts, sort_keys=True, default=str), *files)


@dataclass(frozen=True)
class Outcome:
    """How many runs a mirror left alone, wrote and deleted."""

    kept: int
    written: int
    deleted: int


def run_key(experiment: str, cell: str, seed: int | None, content_hash: str) -> str:
    """The one name of a run: what was trained, with which seed (None: a group over seeds), from which inputs.

    `content_hash` is the hash of the stage's inputs (`content_hash` of its summary.json), which is known before the
    stage starts: a run that is streamed live and the one that is mirrored afterwards have the same key.
    """
    return sha256(experiment, cell, "all" if seed is None else str(seed), content_hash)


def mirror(database: Path, artifacts: Path, experiment: str, runs: Sequence[Run]) -> Outcome:
    """Make the experiment in the SQLite `database` hold exactly `runs`, in their order, parents before children.

    Files go below the folder `artifacts`, where `mlflow server --artifacts-destination` looks for them.

    Raises:
        SamaError: two runs have one key, a parent is unknown, or the database is none that this MLflow can read.
    """
    _check(runs)
    with _readable_errors(database):
        return _mirror(_open(database), artifacts, experiment, runs)


def _mirror(client: "MlflowClient", artifacts: Path, experiment: str, runs: Sequence[Run]) -> Outcome:
    experiment_id = _experiment(client, experiment)
    wanted = {run.key: run.fingerprint() for run in runs}
    present: dict[str, StoredRun] = {}
    surplus: list[StoredRun] = []
    for stored in _stored(client, experiment_id):
        tags = stored.data.tags
        key = tags.get(KEY)
        if key is None:
            continue
        whole = stored.info.lifecycle_stage == "active" and stored.info.status == "FINISHED"
        if whole and key not in present and tags.get(FINGERPRINT) == wanted.get(key, ""):
            present[key] = stored
        else:
            surplus.append(stored)

    now = int(time.time() * 1000)
    identities = {key: stored.info.run_id for key, stored in present.items()}
    for position, run in enumerate(runs):
        parent = identities[run.parent] if run.parent else None
        if run.key not in present:
            # The dashboard lists the latest run first: one millisecond each keeps the order of `runs`.
            moment = now - position
            created = client.create_run(
                experiment_id,
                start_time=moment,
                run_name=run.name,
                tags={KEY: run.key, FINGERPRINT: wanted[run.key], **run.tags, **({PARENT: parent} if parent else {})},
            )
            identities[run.key] = created.info.run_id
            _write(client, created, run, artifacts, moment)
        elif parent and present[run.key].data.tags.get(PARENT) != parent:
            client.set_tag(identities[run.key], PARENT, parent)
    for stored in surplus:
        _delete(client, stored, artifacts)
    return Outcome(kept=len(present), written=len(runs) - len(present), deleted=len(surplus))


def _check(runs: Sequence[Run]) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.key in seen:
            raise SamaError(f"run {run.name}: expected one run a key, got a second one with key {run.key}")
        if run.parent is not None and run.parent not in seen:
            raise SamaError(f"run {run.name}: expected its parent before it, got none with key {run.parent}")
        seen.add(run.key)


@contextmanager
def _readable_errors(database: Path) -> Iterator[None]:
    """Turn what MLflow and SQLite say about the database into one line that names it and what helps."""
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
        got = " ".join(str(error).split())
        raise SamaError(
            f"{database}: expected a database that this version of MLflow can use, got: {got}; "
            f"`mlflow db upgrade {_uri(database)}` renews an older one; without the file and .mlflow/ it is made anew"
        ) from error


def _open(database: Path) -> "MlflowClient":
    """A client of the database, which is created first, whole, if there is none."""
    from mlflow import MlflowClient

    if not database.exists():
        with atomic(database) as temporary:
            # Killed in the middle of it, MLflow leaves tables that it takes for a damaged database.
            _release(MlflowClient(_uri(temporary)))
    return MlflowClient(_uri(database))


def _uri(database: Path) -> str:
    return f"sqlite:///{database.resolve()}"


def _experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment; it is created, or restored if someone deleted it in the dashboard."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # A location without a path of this machine: the folder can be moved, and a server finds its files.
        location = f"{ARTIFACT_SCHEME}:/{name}"
        return client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _stored(client: "MlflowClient", experiment_id: str) -> Iterator["StoredRun"]:
    from mlflow.entities import ViewType

    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _write(client: "MlflowClient", stored: "StoredRun", run: Run, artifacts: Path, moment: int) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    identity = stored.info.run_id
    points = [Metric(name, value, moment, step) for step, values in run.metrics for name, value in values.items()]
    params = [Param(name, _shown(value)) for name, value in run.params.items()]
    for number in range(max(-(-len(points) // MOST_METRICS), -(-len(params) // MOST_PARAMS))):
        client.log_batch(
            identity,
            metrics=points[number * MOST_METRICS : (number + 1) * MOST_METRICS],
            params=params[number * MOST_PARAMS : (number + 1) * MOST_PARAMS],
        )
    if run.data_set is not None:
        described = Dataset(
            name=run.data_set.name,
            digest=run.data_set.digest[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": run.data_set.source}),
            profile=json.dumps(dict(run.data_set.facts)),
        )
        client.log_inputs(identity, datasets=[DatasetInput(described, [InputTag("mlflow.data.context", "training")])])
    folder = _artifact_folder(stored, artifacts)
    for name, source in run.artifacts.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    client.set_terminated(identity, end_time=moment)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 1] + "…"


def _artifact_folder(stored: "StoredRun", artifacts: Path) -> Path:
    """Where the server reads the run's files: below `artifacts`, or a plain folder if the experiment is a user's."""
    parsed = urlparse(stored.info.artifact_uri)
    path = unquote(parsed.path)
    return artifacts / path.lstrip("/") if parsed.scheme == ARTIFACT_SCHEME else Path(path)


def _delete(client: "MlflowClient", stored: "StoredRun", artifacts: Path) -> None:
    """Delete a run, its rows and its files. MLflow's own way (`mlflow gc`) cannot reach files without a server."""
    folder = _artifact_folder(stored, artifacts)
    if folder.parent.name == stored.info.run_id:
        shutil.rmtree(folder.parent, ignore_errors=True)
    if stored.info.lifecycle_stage == "active":
        client.delete_run(stored.info.run_id)
    store = client._tracking_client.store
    if hasattr(store, "_hard_delete_run"):
        store._hard_delete_run(stored.info.run_id)


def _release(client: "MlflowClient") -> None:
    """Close the connections, so that the file can be renamed with nothing left to write."""
    client._tracking_client.store.engine.dispose()
