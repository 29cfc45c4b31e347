"""`sama doctor`: what an experiment needs of this machine and its cluster, looked at before hours are spent on it.

Each check gives one line: fine, worth knowing, or to be mended, and then what mends it. Nothing is left behind; with a
partition one small job is sent to it, which says what a node sees.
"""

import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sama import tracking
from sama.config import Config, TextsConfig
from sama.errors import SamaError
from sama.launch import queue

LEAST_FREE_GB = 5
EMBEDDED = ("digits", "synthetic_texts")
ASK_SECONDS, JOB_SECONDS = 30, 60


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's."""

    state: Literal["ok", "note", "mend"]
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:4}  {self.what:15}  {self.text}"


def examine(config: Config | TextsConfig, partition: str | None, gpus: int) -> Iterator[Finding]:
    """All findings, in the order of the checks.

    Args:
        config: the experiment.
        partition: of Slurm; None: no cluster is looked at.
        gpus: of the job that is sent there.
    """
    yield from _folder(Path.cwd())
    yield from _gpu(config, cluster=partition is not None)
    yield from _data(config)
    yield from _server()
    if partition is not None:
        yield from _cluster(partition, gpus)


def _folder(folder: Path) -> Iterator[Finding]:
    """Room, and the kernel's locks, which a few network file systems lack."""
    free = shutil.disk_usage(folder).free / 1e9
    state = "ok" if free >= LEAST_FREE_GB else "mend"
    more = (
        "" if state == "ok" else f", expected at least {LEAST_FREE_GB}: results, logs and checkpoints are written here"
    )
    yield Finding(state, "room", f"{free:.0f} GB are free in {folder}{more}")
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        with probe.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Finding("ok", "folder", "can be written and locked")
    except OSError as error:
        yield Finding(
            "mend", "folder", f"{folder} cannot be written and locked ({error.strerror}): run from another one"
        )
    finally:
        probe.unlink(missing_ok=True)


def _gpu(config: Config | TextsConfig, *, cluster: bool) -> Iterator[Finding]:
    import torch

    wanted = config.runtime.device
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
        yield Finding("ok", "GPU", f"torch {torch.__version__} sees {names}")
    elif wanted == "cuda" and not cluster:
        yield Finding(
            "mend", "GPU", f"torch {torch.__version__} sees none, and runtime.device is cuda: set auto or cpu"
        )
    else:
        where = "on this machine" if cluster else "here: the experiment would run on the processor"
        yield Finding("note", "GPU", f"torch {torch.__version__} sees none {where}")


def _data(config: Config | TextsConfig) -> Iterator[Finding]:
    root, path, source = config.data_root, config.data.path, config.data.source
    if source in EMBEDDED:
        yield Finding("ok", "data", f"not needed: {source} is embedded")
    elif source == "hub":
        yield Finding("note", "data", f"{path} comes from the hub: nothing was asked of it")
    elif root is None and not Path(path or "").is_absolute():
        text = f"no folder is named that holds {path or source}: set SAMA_DATA_DIR, or data_root"
        yield Finding("mend", "data", text)
    elif not (place := Path(root or "") / (path or "")).exists():
        yield Finding("mend", "data", f"{place} is missing: put the data there, or set SAMA_DATA_DIR or data.path")
    else:
        yield Finding("ok", "data", str(place))


def _server() -> Iterator[Finding]:
    place, named = tracking.server(), os.environ.get("MLFLOW_TRACKING_URI")
    if place is None and named:
        text = f"MLFLOW_TRACKING_URI={named} is not used, expected http://HOST:PORT (unset: mlflow.db in this folder)"
        yield Finding("mend", "tracking", text)
        return
    if place is None:
        yield Finding("ok", "tracking", "mlflow.db in this folder; MLFLOW_TRACKING_URI=http://… names a server instead")
        return
    try:
        with place.readable_errors():
            place.open().search_experiments(max_results=1)
        yield Finding("ok", "tracking", f"{place.where} answers")
    except SamaError as error:
        yield Finding("mend", "tracking", f"{error}; jobs run without it, and are mirrored when it is back")


def _cluster(partition: str, gpus: int) -> Iterator[Finding]:
    if shutil.which("sinfo") is None:
        yield Finding("mend", "Slurm", "sinfo is not on the PATH: run this where jobs are submitted from")
        return
    asked = queue.ask("sinfo", "--noheader", "--format=%R|%a|%l|%D|%G", seconds=ASK_SECONDS)
    if asked.returncode:
        yield Finding(
            "mend", "Slurm", f"sinfo fails ({queue.last_line(asked.stderr or asked.stdout)}): is the controller up?"
        )
        return
    found = {row[0]: row for line in asked.stdout.splitlines() if len(row := line.strip().split("|")) == 5}
    if partition not in found:
        yield Finding("mend", "partition", f"there is no {partition}, expected one of {', '.join(sorted(found))}")
        return
    _, state, limit, nodes, resources = found[partition]
    if state != "up":
        yield Finding("mend", "partition", f"{partition} is {state}, expected up")
        return
    yield Finding("ok", "partition", f"{partition}: {nodes} nodes, time limit {limit}, resources {resources}")
    if shutil.which("sacct") is None or queue.ask("sacct", "--noheader", "--jobs=1", seconds=ASK_SECONDS).returncode:
        text = "sacct does not answer: how a job ended is then known from its own result alone"
        yield Finding("note", "accounting", text)
    else:
        yield Finding("ok", "accounting", "sacct answers")
    yield from _node(partition, gpus)


def _node(partition: str, gpus: int) -> Iterator[Finding]:
    """What a job there sees: this folder, this Python, its GPUs."""
    probe = Path.cwd() / f".doctor-{uuid.uuid4().hex}"
    probe.write_text("shared", encoding="utf-8")
    code = (
        f"import pathlib, torch; assert pathlib.Path({str(probe)!r}).read_text() == 'shared'; "
        "print('sees', torch.cuda.device_count())"
    )
    command = ["srun", f"--partition={partition}", "--ntasks=1", "--time=2", f"--immediate={JOB_SECONDS}", "--quiet"]
    command += [f"--gres=gpu:{gpus}"] if gpus else []
    try:
        done = queue.ask(*command, sys.executable, "-c", code, seconds=3 * JOB_SECONDS)
    finally:
        probe.unlink()
    said = queue.last_line(done.stderr or done.stdout)
    if done.returncode == 0 and "sees" in done.stdout:
        seen = int(done.stdout.split()[-1])
        yield Finding("ok", "node", "a job runs, sees this folder and this Python")
        if gpus and seen < gpus:
            text = f"a job that asks for {gpus} sees {seen}: is torch built for the driver of {partition}?"
            yield Finding("mend", "node's GPU", text)
    elif "FileNotFoundError" in done.stderr or "AssertionError" in done.stderr:
        yield Finding("mend", "node", f"a job does not see {Path.cwd()}: work in a folder that all nodes share")
    elif "immediate" in done.stderr or "Unable to allocate" in done.stderr:
        text = f"no job could start within {JOB_SECONDS} s ({said}): the folder was not looked at from there"
        yield Finding("note", "node", text)
    else:
        text = f"a job with {sys.executable} fails ({said}): is this environment on a shared folder?"
        yield Finding("mend", "node", text)


def report(findings: Iterator[Finding], say: Callable[[str], None]) -> int:
    """Say each as it comes; 1 if something is to be mended."""
    mend = 0
    for finding in findings:
        say(str(finding))
        mend += finding.state == "mend"
    say(f"{mend} to mend" if mend else "nothing to mend")
    return int(mend > 0)
