"""The process to which all of a throwaway Slurm belongs.

    python -m tests.cluster.supervisor DIR [detached]

It writes the configuration, starts each daemon once what that needs has answered, says `up`, and waits for SIGTERM. In
the end it kills all that is below it and removes the folder. It adopts orphans, so jobs' processes are below it too.
Without `detached`, the end of the process that started it counts as SIGTERM.
"""

import ctypes
import getpass
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from string import Template
from typing import NoReturn

from sama import guard

PACKAGES = {  # a program, and Debian's package that has it
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
}
CLIENTS = ("sacct", "sacctmgr", "salloc", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun", "sstat")
NODES = ("127.0.0.11", "127.0.0.12")
LOOPBACK = "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"
IDENTITY = "supervisor"  # the file that names this process
START_SECONDS = 120.0


class ClusterError(RuntimeError):
    """The cluster cannot be brought up, asked or taken down: one line that says why."""


def missing() -> str:
    """One line that names the packages which are missing; empty if none is."""
    packages = [package for program, package in PACKAGES.items() if not _which(program)]
    return f"needs Slurm: apt-get install --no-install-recommends {' '.join(packages)}" if packages else ""


class Daemons:
    """The configuration and the daemons below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def write_files(self) -> None:
        """What the daemons read, wrappers of the clients, and `env.sh`, which finds the cluster for a shell."""
        controller, accounting, first, second = _free_ports(4)
        values = {
            "folder": self.folder,
            "user": getpass.getuser(),
            "host": socket.gethostname().partition(".")[0],
            "binding": LOOPBACK if _host_is_loopback() else "",
            "controller_port": controller,
            "accounting_port": accounting,
            "first_port": first,
            "second_port": second,
            "first_job": 1000 * controller,
        }
        for name in ("slurm.conf", "slurmdbd.conf", "gres.conf"):
            text = Path(__file__).with_name(name).read_text(encoding="utf-8")
            self._write(name, Template(text).substitute(values).encode())
        self._write("munge.key", os.urandom(128))
        for name in ("bin", "state", "tmp", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        for gpu in ("gpu0", "gpu1"):
            (self.folder / gpu).symlink_to(os.devnull)
        # submitit.helpers.clean_env, for one, drops SLURM_CONF before a client is called: the wrappers bring it back
        setting = f"SLURM_CONF={shlex.quote(self.environment['SLURM_CONF'])}"
        for client in CLIENTS:
            self._write(f"bin/{client}", f'#!/bin/sh\n{setting} exec {_which(client)} "$@"\n'.encode(), 0o700)
        path = f"PATH={shlex.quote(str(self.folder / 'bin'))}:$PATH"
        self._write("env.sh", f"export {setting} {path}\n".encode())

    def start(self) -> None:
        """Start everything; returns when both nodes are idle."""
        self._start_munge()
        self._start_accounting()
        self._start("slurmctld", "-D")
        self._wait_for("slurmctld", "scontrol", "ping")
        for node in NODES:
            self._start("slurmd", "-D", "-N", node)
        idle = ("--noheader", "--Node", "--partition=normal", "--states=idle", "--format=%N")
        self._wait_for("slurmd", "sinfo", *idle, accept=lambda answer: len(answer.split()) == len(NODES))

    def _start_munge(self) -> None:
        socket_file = f"--socket={self.folder}/munge.socket"
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed")]
        self._start("munged", "--foreground", "--force", socket_file, *files)
        self._wait_for("munged", "munge", "--no-input", socket_file)

    def _start_accounting(self) -> None:
        """MariaDB without users or network, its socket in our folder, and slurmdbd, the only one to use it."""
        mariadb = f"{self.folder}/mariadb.socket"
        # two servers with one tmpdir remove each other's tables
        places = (f"--datadir={self.folder}/mariadb", f"--tmpdir={self.folder}/tmp")
        data = ("--no-defaults", f"--user={getpass.getuser()}", *places)
        small = ("--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M")
        install = self._start("mariadb-install-db", *data, *small, "--skip-test-db", "--skip-name-resolve")
        if install.wait() != 0:
            raise ClusterError(f"mariadb-install-db failed: {self._last_words('mariadb-install-db')}")
        del self.started["mariadb-install-db"]
        private = (f"--socket={mariadb}", "--skip-networking", "--skip-grant-tables")
        # no time is spent on what only a crash would lose
        quick = ("--innodb-flush-log-at-trx-commit=0", "--performance-schema=OFF")
        self._start("mariadbd", *data, *small, *private, *quick, f"--pid-file={self.folder}/mariadb.pid")
        self._wait_for("mariadbd", "mariadb-admin", "--no-defaults", f"--socket={mariadb}", "ping")
        self._start("slurmdbd", "-D", MYSQL_UNIX_PORT=mariadb)
        self._wait_for("slurmdbd", "sacctmgr", "show", "cluster")

    def _start(self, program: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        name = "-".join((program, *(argument for argument in arguments if argument in NODES)))
        with (self.folder / f"{name}.out").open("wb") as log:
            self.started[name] = subprocess.Popen(
                [_which(program), *arguments],
                env={**self.environment, **environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=partial(guard.die_with_parent, signal.SIGKILL),  # should this process be killed
            )
        return self.started[name]

    def _wait_for(self, name: str, *client: str, accept: Callable[[str], bool] = lambda answer: True) -> None:
        end = time.monotonic() + START_SECONDS
        while True:
            asked = subprocess.run(client, env=self.environment, capture_output=True, text=True)
            if asked.returncode == 0 and accept(asked.stdout):
                return
            for daemon, process in self.started.items():
                if process.poll() is not None:
                    raise ClusterError(f"{daemon} ended: {self._last_words(daemon)}")
            if time.monotonic() > end:
                raise ClusterError(f"{name} was not ready after {START_SECONDS:g} s: {asked.stderr.strip()}")
            time.sleep(0.05)

    def _write(self, name: str, content: bytes, mode: int = 0o600) -> None:
        path = self.folder / name
        path.touch(mode)
        path.write_bytes(content)

    def _last_words(self, name: str) -> str:
        """Its last line that speaks of an error, or else its last line."""
        lines = (self.folder / f"{name}.out").read_text(encoding="utf-8", errors="replace").split("\n")
        lines = [line.strip() for line in lines if line.strip()]
        errors = [line for line in lines if re.search("error|fatal", line, re.IGNORECASE)]
        return (errors or lines or ["without a word"])[-1]


def _which(program: str) -> str:
    """The program's path, also where only root's PATH leads; empty if there is none."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or ""


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens at, below those that the kernel hands out by itself."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = random.randrange(20000, 32768)
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(("", port))
                ports.append(port)
    return ports


def _host_is_loopback() -> bool:
    """Whether a daemon that binds to the address of the host's name, and to no other, is reached at 127.0.0.1."""
    try:
        return socket.gethostbyname(socket.gethostname()) == "127.0.0.1"
    except OSError:
        return False


def _adopt_orphans() -> None:
    """Become the parent of each process below this one that loses its own; Linux only, as Slurm's packages are."""
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _kill_all_below() -> None:
    while below := guard.descendants(os.getpid()):
        for pid in below:
            guard.kill(pid)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main(folder: Path, detached: bool) -> int:
    """Hold the cluster until SIGTERM; an exit code."""
    signal.signal(signal.SIGTERM, _end)
    if not detached:
        guard.die_with_parent(signal.SIGTERM)
    _adopt_orphans()
    try:
        (folder / IDENTITY).write_text(guard.identity(os.getpid()), encoding="utf-8")
        daemons = Daemons(folder)
        daemons.write_files()
        daemons.start()
        print("up", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets what ends
        while True:
            signal.pause()
    except ClusterError as error:
        print(error)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _kill_all_below()
        shutil.rmtree(folder)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), "detached" in sys.argv[2:]))
