"""The environment that every job of the workflow inherits."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from sama import guard
from sama.config import Config, TextsConfig
from sama.errors import SamaError
from sama.files import write_text

STARTED = time.time()


def inherit(root: Path, config: Config | TextsConfig) -> None:
    """Set it, in this process.

    Jobs run `python -m sama.cli STAGE …`, with this interpreter and the package below `root`. The interpreter stands in
    no rule, where another path would count as a change of the rule and re-run its jobs. Every stage watches this
    process and dies with it, but for a job of Slurm, which is joined by the next run.
    """
    os.environ.update(guard.own_environment(), MLFLOW_EXPERIMENT_NAME=config.experiment)
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", root)
    if config.data_root:
        os.environ["SAMA_DATA_DIR"] = config.data_root


def launch(config: Config | TextsConfig, stage: str, logs: str, threads: int, resources: Any) -> str:
    """What stands before a stage in its command: nothing, or `launch OPTIONS… --` with the rule's resources.

    Of `resources` are read mem_mb, gpu (of a node), runtime (minutes) and, for Slurm, nodes, tasks_per_node,
    slurm_partition, slurm_account, slurm_extra (`--qos=high --constraint=a100`) and array_limit, as rules and profiles
    set them.
    """
    if stage not in config.launcher.stages:
        return ""
    slurm = config.launcher.kind == "slurm"
    given = {
        "launcher": config.launcher.kind,
        "cpus": threads,
        "gpus": resources.get("gpu", 0),
        "memory-mb": resources.get("mem_mb"),
        "timeout-minutes": resources.get("runtime") or config.launcher.timeout_minutes,
        "logs": f"{logs}/{'slurm' if slurm else 'submitit'}",
    }
    if slurm:
        given |= {
            "nodes": resources.get("nodes"),
            "tasks-per-node": resources.get("tasks_per_node"),
            "partition": resources.get("slurm_partition"),
            "account": resources.get("slurm_account"),
            "array-limit": resources.get("array_limit"),
            "memory-factor": config.launcher.retries.memory_factor,
        }
    words = [word for key, value in given.items() if value not in (None, "") for word in (f"--{key}", str(value))]
    if slurm:
        retries = config.launcher.retries.model_dump(exclude={"memory_factor"})
        words += [word for kind, count in retries.items() for word in ("--retry", f"{kind}={count}")]
        further = shlex.split(resources.get("slurm_extra") or "")
        words += [word for each in further for word in ("--slurm", each.lstrip("-"))]
    return shlex.join(["launch", *words, "--"])


def begin(settings: Path, text: str) -> None:
    """Hold the folder, let jobs of a dead run end, save the configuration beside the results; or stop with one line."""
    try:
        guard.hold_folder()
        guard.wait_for_jobs()  # of a run that was killed, and whose last processes have not seen it yet
        write_text(settings, text)
    except SamaError as error:
        sys.exit(f"sama: {error}")
    except OSError as error:
        sys.exit(f"sama: {settings}: cannot be written ({error.strerror})")


def failures(logs: Path) -> list[str]:
    """For each stage that failed in this run, what its log says last, with the log's path."""
    found = []
    for path in sorted(logs.rglob("*.log")):
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        failed = lines and (lines[-1].startswith("sama ") or any(line.startswith("Traceback (") for line in lines))
        if failed and path.stat().st_mtime >= STARTED:
            found.append(f"{lines[-1]} [{path}]")
    return found


def _prepend(variable: str, folder: Path) -> None:
    present = os.environ.get(variable)
    os.environ[variable] = os.pathsep.join([str(folder), *([present] if present else [])])
