"""Make MLflow hold exactly what result files say.

A run stands for one training (a cell and a seed) or for a group of them. Two tags say which and how fresh: `sama.key`
names what the run stands for (`run_key`; live streaming uses the same), `sama.fingerprint` is the hash of everything
that is written into it before it is marked as finished. So `mirror` can be repeated at any time: a finished run with
the right key and fingerprint is kept; one that was streamed live and says nothing else is completed; one that is
missing, unfinished or different is written anew; others are deleted. Runs without `sama.key` (a user's own) are never
touched.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sama.errors import SamaError
from sama.tracking.runs import FINGERPRINT, KEY, Outcome, Point, Run
from sama.tracking.store import Store, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

PARENT = "mlflow.parentRunId"
SYSTEM = "system/"  # metrics of the machine, which live streaming adds and no result file holds
MOST_METRICS, MOST_PARAMS = 900, 100  # in one call: MLflow takes 1000 entries, 100 of them params
LONGEST_PARAM = 6000
LONGEST_DIGEST = 36


def mirror(store: Store, experiment: str, runs: Sequence[Run]) -> Outcome:
    """Make the experiment in `store` hold exactly `runs`, in their order, parents before children.

    Raises:
        SamaError: two runs have one key, a parent is unknown, or the store is none that this MLflow can use.
    """
    _check(runs)
    with store.readable_errors():
        return _mirror(store, store.open(), experiment, runs)


def _mirror(store: Store, client: "MlflowClient", experiment: str, runs: Sequence[Run]) -> Outcome:
    identity = experiment_id(client, experiment)
    by_key = {run.key: run for run in runs}
    wanted = {run.key: run.fingerprint() for run in runs}
    present: dict[str, StoredRun] = {}
    streamed: dict[str, tuple[StoredRun, Counter[Point]]] = {}  # and what stands there already
    surplus: list[StoredRun] = []
    for stored in _stored(client, identity):
        tags = stored.data.tags
        key = tags.get(KEY)
        if key is None:
            continue
        active = stored.info.lifecycle_stage == "active"
        whole = active and stored.info.status == "FINISHED"
        if whole and key not in present and tags.get(FINGERPRINT) == wanted.get(key, ""):
            present[key] = stored
        elif active and FINGERPRINT not in tags and key in wanted and key not in streamed:
            streamed[key] = stored, history(client, stored)
        else:
            surplus.append(stored)
    for key, (stored, held) in list(streamed.items()):
        if key in present or held - Counter(by_key[key].points()):  # it holds a point that the files have not
            del streamed[key]
            surplus.append(stored)

    now = int(time.time() * 1000)
    identities = {key: stored.info.run_id for key, stored in present.items()}
    for position, run in enumerate(runs):
        parent = identities[run.parent] if run.parent else None
        if run.key not in present:
            # The dashboard lists the latest run first: one millisecond each keeps the order of `runs`.
            moment = now - position
            tags = {KEY: run.key, **run.tags, **({PARENT: parent} if parent else {})}
            if run.key in streamed:
                created, held = streamed[run.key]
                client.update_run(created.info.run_id, name=run.name)
                for name, value in tags.items():
                    client.set_tag(created.info.run_id, name, value)
                _write(store, client, created, run, moment, (Counter(run.points()) - held).elements())
                client.set_tag(created.info.run_id, FINGERPRINT, wanted[run.key])
            else:
                given = {**tags, FINGERPRINT: wanted[run.key]}
                created = client.create_run(identity, start_time=moment, run_name=run.name, tags=given)
                _write(store, client, created, run, moment, run.points())
            identities[run.key] = created.info.run_id
        elif parent and present[run.key].data.tags.get(PARENT) != parent:
            client.set_tag(identities[run.key], PARENT, parent)
    for stored in surplus:
        store.delete(client, stored)
    return Outcome(kept=len(present), written=len(runs) - len(present), deleted=len(surplus))


def _check(runs: Sequence[Run]) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.key in seen:
            raise SamaError(f"run {run.name}: expected one run a key, got a second one with key {run.key}")
        if run.parent is not None and run.parent not in seen:
            raise SamaError(f"run {run.name}: expected its parent before it, got none with key {run.parent}")
        seen.add(run.key)


def _stored(client: "MlflowClient", experiment: str) -> Iterator["StoredRun"]:
    from mlflow.entities import ViewType

    token: str | None = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def history(client: "MlflowClient", stored: "StoredRun") -> Counter[Point]:
    """How often each point (metric, step, value) of a run stands there; those of the machine are left out."""
    names = [name for name in stored.data.metrics if not name.startswith(SYSTEM)]
    return Counter(
        (name, point.step, point.value)
        for name in names
        for point in client.get_metric_history(stored.info.run_id, name)
    )


def _write(
    store: Store,
    client: "MlflowClient",
    stored: "StoredRun",
    run: Run,
    moment: int,
    points: Iterable[Point],
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    identity = stored.info.run_id
    metrics = [Metric(name, value, moment, step) for name, step, value in points]
    params = [Param(name, _shown(value)) for name, value in run.params.items()]
    for number in range(max(-(-len(metrics) // MOST_METRICS), -(-len(params) // MOST_PARAMS))):
        client.log_batch(
            identity,
            metrics=metrics[number * MOST_METRICS : (number + 1) * MOST_METRICS],
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
    for name, source in run.artifacts.items():
        store.put(client, stored, name, source)
    client.set_terminated(identity, end_time=moment)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 1] + "…"
