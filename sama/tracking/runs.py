"""What stands in MLflow: runs, and the names that they are found again by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sama.files import sha256

KEY = "sama.key"
FINGERPRINT = "sama.fingerprint"
Point = tuple[str, int, float]
"""(metric, step, value)."""


@dataclass(frozen=True)
class DataSet:
    """The examples that a run learned from, for MLflow's list of inputs."""

    name: str
    digest: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run as it shall stand in MLflow. `parent` is the key of the run it is shown below."""

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

    def points(self) -> list[Point]:
        """Those of all its metrics."""
        return [(name, step, value) for step, values in self.metrics for name, value in values.items()]


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
