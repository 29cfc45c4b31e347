import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm import REPOSITORY, Slurm
from tests.cluster.supervisor import missing


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A cluster of this process's own; skips where Debian's packages are missing."""
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="sama-slurm-") as folder, Slurm(Path(folder, "cluster")) as cluster:
        yield cluster


@pytest.fixture
def on_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """The cluster, with this process's environment made that of a client; submitit asks it every second."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.fspath(REPOSITORY))
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=1))
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 2)
    return slurm
