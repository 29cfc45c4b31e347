"""A throwaway Slurm on this machine: munge, accounting, a controller and two nodes, all below one folder.

    python -m tests.cluster.slurm up DIR      # then, in a shell: . DIR/env.sh
    python -m tests.cluster.slurm down DIR

It needs Debian's packages, but neither root nor systemd nor the system's own services. Its processes belong to a
supervisor (`supervisor.py`): as that ends, so do they and the folder.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sama import guard
from tests.cluster.supervisor import IDENTITY, ClusterError, missing

REPOSITORY = Path(__file__).parents[2]
LONGEST_FOLDER = 80  # Linux takes 107 bytes as a socket's path
STOP_SECONDS = 60.0


class Slurm:
    """A cluster below `folder`, which must be absent or empty, and goes with it.

    Unless `detached`, the cluster ends with the process that brought it up, however that ends.
    """

    def __init__(self, folder: Path, detached: bool = False) -> None:
        self.folder = folder.resolve()
        self.detached = detached

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find this cluster."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    @property
    def supervisor(self) -> str:
        """The process above all others of the cluster, as `sama.guard.identity` writes it; empty if there is none."""
        path = self.folder / IDENTITY
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def up(self) -> None:
        """Return when both nodes are idle; on failure and interruption nothing stays.

        Raises:
            ClusterError: a package is missing, the folder is in use, a daemon ended or does not answer
        """
        if reason := missing():
            raise ClusterError(reason)
        if len(os.fsencode(self.folder)) > LONGEST_FOLDER:
            raise ClusterError(f"{self.folder}: sockets need a path of at most {LONGEST_FOLDER} bytes")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise ClusterError(f"{self.folder}: expected an empty folder")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.supervisor", self.folder, *["detached"] * self.detached],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a Ctrl-C is for us alone
        )
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if said != "up\n":
                words = (said + process.stdout.read()).strip()
                raise ClusterError(words.splitlines()[-1] if words else f"{self.folder}: the supervisor was killed")
        except BaseException:
            process.terminate()
            process.wait()
            self._remove()
            raise

    def down(self) -> None:
        """End every process of the cluster, those of its jobs too, and remove the folder: nothing of it is kept."""
        supervisor = self.supervisor
        end = time.monotonic() + STOP_SECONDS
        if supervisor and guard.alive(supervisor):
            os.kill(int(supervisor.partition(":")[0]), signal.SIGTERM)
        while supervisor and guard.alive(supervisor):
            if time.monotonic() > end:
                raise ClusterError(f"{self.folder}: process {supervisor} does not end")
            time.sleep(0.02)
        self._remove()

    def _remove(self) -> None:
        """Remove what a killed supervisor left; what its daemons' own children write until they end, too."""
        end = time.monotonic() + STOP_SECONDS
        while self.folder.exists():
            if time.monotonic() > end:
                raise ClusterError(f"{self.folder}: cannot be removed")
            shutil.rmtree(self.folder, ignore_errors=True)
            time.sleep(0.02)

    def ask(self, *command: str) -> str:
        """What a client answers to, say, `squeue --noheader`.

        Raises:
            ClusterError: the client failed; with its own words
        """
        result = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        if result.returncode != 0:
            raise ClusterError(f"{shlex.join(command)}: {result.stderr.strip()}")
        return result.stdout.strip()


def main() -> int:
    """`up DIR` or `down DIR`; an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.slurm", description="A throwaway Slurm.")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    cluster = Slurm(given.folder, detached=True)
    try:
        if given.action == "up":
            cluster.up()
            print(f". {shlex.quote(str(cluster.folder / 'env.sh'))}")
        elif cluster.supervisor:
            cluster.down()
        else:
            raise ClusterError(f"{cluster.folder}: no cluster there")
    except (ClusterError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
