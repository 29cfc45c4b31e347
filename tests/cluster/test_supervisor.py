"""A cluster comes whole and goes without a trace, however it is ended."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.cluster.slurm import REPOSITORY, Slurm
from tests.cluster.supervisor import PACKAGES, ClusterError, missing
from tests.toy_pipeline import left, tree, wait_until

DAEMONS = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd"}
OWNER = """
import sys
from pathlib import Path
from tests.cluster.slurm import Slurm

with Slurm(Path(sys.argv[1])) as cluster:
    cluster.ask("sbatch", "--output=/dev/null", "--wrap=sleep 600")
    print("up", flush=True)
    sys.stdin.read()
"""

needs_slurm = pytest.mark.skipif(missing() != "", reason=missing())


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a shorter path than tmp_path has; a cluster that a failed test has left there is taken down."""
    with TemporaryDirectory(prefix="sama-slurm-") as name:
        yield Path(name, "cluster")
        Slurm(Path(name, "cluster")).down()


def processes(cluster: Slurm) -> list[psutil.Process]:
    return tree(int(cluster.supervisor.partition(":")[0]))


def command(action: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tests.cluster.slurm", action, os.fspath(folder)]
    return subprocess.run(line, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True)


@needs_slurm
def test_up_by_hand_stays_until_down(folder: Path) -> None:
    up = command("up", folder)
    assert (up.returncode, up.stdout, up.stderr) == (0, f". {folder}/env.sh\n", "")
    jobs = "sbatch --parsable --output=/dev/null --wrap='sleep 600' && env -u SLURM_CONF squeue --noheader --format=%i"
    shell = subprocess.run(f". {folder}/env.sh && {jobs}", shell=True, capture_output=True, text=True)
    submitted, queued = shell.stdout.split()
    assert submitted == queued
    cluster = Slurm(folder)
    wait_until(lambda: any(process.name() == "sleep" for process in processes(cluster)), "the job", seconds=60)
    found = processes(cluster)
    assert {process.name() for process in found} > DAEMONS
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "its database has no password"

    again = command("up", folder)
    assert (again.returncode, again.stderr) == (1, f"{folder}: expected an empty folder\n")
    down = command("down", folder)
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
    assert left(found) == []
    assert not folder.exists()
    nothing = command("down", folder)
    assert (nothing.returncode, nothing.stderr) == (1, f"{folder}: no cluster there\n")


@needs_slurm
def test_goes_with_its_killed_owner(folder: Path) -> None:
    line = [sys.executable, "-c", OWNER, os.fspath(folder)]
    owner = subprocess.Popen(line, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    cluster = Slurm(folder)
    wait_until(lambda: any(process.name() == "sleep" for process in processes(cluster)), "the job", seconds=60)
    found = processes(cluster)
    owner.kill()
    owner.communicate()
    wait_until(lambda: not left(found) and not folder.exists(), "all to end", seconds=60)


@needs_slurm
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_on_the_way_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    line = [sys.executable, "-m", "tests.cluster.slurm", "up", os.fspath(folder)]
    starting = subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_until((folder / "munge.socket").exists, "the first daemon", seconds=60)
    found = processes(Slurm(folder))
    starting.send_signal(number)
    assert starting.communicate()[1] == ""
    assert starting.returncode == 130
    assert left(found) == []
    assert not folder.exists()


@needs_slurm
def test_killed_supervisor_takes_its_daemons_with_it(folder: Path) -> None:
    line = [sys.executable, "-m", "tests.cluster.slurm", "up", os.fspath(folder)]
    starting = subprocess.Popen(line, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_until((folder / "munge.socket").exists, "the first daemon", seconds=60)
    found = processes(Slurm(folder))
    assert "munged" in {process.name() for process in found}
    found[0].kill()
    assert starting.communicate()[1] == f"{folder}: the supervisor was killed\n"
    wait_until(lambda: not left(found), "all to end")
    assert not folder.exists()


@needs_slurm
def test_failing_daemon_is_named_with_its_last_words(folder: Path, tmp_path: Path) -> None:
    failing = tmp_path / "mariadb-install-db"
    failing.write_text("#!/bin/sh\necho ERROR: no space left >&2\necho see you\nexit 3\n")
    failing.chmod(0o755)
    up = command("up", folder, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert (up.returncode, up.stderr) == (1, "mariadb-install-db failed: ERROR: no space left\n")
    assert not folder.exists()


@needs_slurm
def test_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 80)
    with pytest.raises(ClusterError, match=r"x: sockets need a path of at most 80 bytes"):
        Slurm(folder).up()
    assert not folder.exists()


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "a-program-that-nobody-has", "its-package")
    with pytest.raises(ClusterError, match=r"^needs Slurm: apt-get install --no-install-recommends .*its-package$"):
        Slurm(folder).up()
