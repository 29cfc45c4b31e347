"""Two network namespaces with one shaped link between them, which vanish whatever happens; Linux, as root."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from sama import guard
from sama.errors import SamaError

INTERFACE = "link0"
PREFIX = "sama-link-"
ADDRESSES = ("10.0.0.1/30", "10.0.0.2/30")  # nothing outside of the two namespaces knows them
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def refusal() -> str | None:
    """Why there can be no namespaces here, in one line; None: there can."""
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"network namespaces need {' and '.join(missing)}, of the package iproute2: not found here"
    if os.geteuid() != 0:
        return "network namespaces need root: this process runs as another user"
    try:
        with linked():
            return None
    except SamaError as error:
        return str(error)


@contextlib.contextmanager
def linked() -> Iterator[list[str]]:
    """Names of two namespaces, each with an end of one link. Those that a killed process left behind go as well.

    A SIGTERM inside of the block becomes SystemExit, so that they go then too.

    Raises:
        SamaError: the tools are missing or the system forbids it; says what was refused.
    """
    _sweep()
    names = [f"{PREFIX}{os.getpid()}-{_started(os.getpid())}-{end}" for end in "ab"]
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        for name in names:
            _command("ip", "netns", "add", name)
        _command(
            "ip", "-n", names[0], "link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", names[1]
        )
        for name, address in zip(names, ADDRESSES, strict=True):
            _command("ip", "-n", name, "address", "add", address, "dev", INTERFACE)
            for device in ("lo", INTERFACE):
                _command("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            _remove(name)
        signal.signal(signal.SIGTERM, before)


def shape(names: list[str], megabits: float | None) -> None:
    """Let each end send at most so many megabits a second (a token bucket); None: as fast as it can."""
    for name in names:
        where = ["tc", "-n", name, "qdisc", "replace", "dev", INTERFACE, "root"]
        if megabits is None:
            _command(*where, "pfifo")
        else:
            burst = max(
                32_000, int(megabits * 1e6 / 8 * 0.004)
            )  # what goes out between two ticks of a slow kernel clock
            _command(*where, "tbf", "rate", f"{megabits:g}mbit", "burst", f"{burst}b", "latency", "50ms")


def sent(name: str) -> int:
    """Bytes that this end of the link has sent, headers included."""
    told = json.loads(_command("ip", "-n", name, "-s", "-j", "link", "show", "dev", INTERFACE))
    return int(told[0]["stats64"]["tx"]["bytes"])


def _command(*words: str) -> str:
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError as error:
        raise SamaError(f"{words[0]}, of the package iproute2: not found here") from error
    if done.returncode:
        raise SamaError(f"`{' '.join(words)}` was refused: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _remove(name: str) -> None:
    if (Path("/run/netns") / name).exists():
        _command("ip", "netns", "delete", name)


def _sweep() -> None:
    """Remove the namespaces of processes that are gone."""
    for path in Path("/run/netns").glob(f"{PREFIX}*"):
        owner = re.fullmatch(rf"{PREFIX}(\d+)-(\d*)-[ab]", path.name)
        if owner and not guard.alive(f"{owner[1]}:{owner[2]}"):
            with contextlib.suppress(SamaError):  # somebody else sweeps too
                _remove(path.name)


def _started(pid: int) -> str:
    return guard.identity(pid).partition(":")[2]


def _leave(number: int, frame: FrameType | None) -> Any:
    raise SystemExit(128 + number)
