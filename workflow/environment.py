"""The environment that every job of the workflow inherits."""

import os
import sys
import time
from pathlib import Path

from sama import guard
from sama.config import Config, TextsConfig
from sama.errors import SamaError
from sama.files import write_text

STARTED = time.time()
LAUNCHABLE = ("meta_train", "observe", "score", "retrain", "tune", "finetune")


def inherit(root: Path, config: Config | TextsConfig, logs: str, gpus: int) -> None:
    """Set it, in this process.

    Jobs run `python -m sama.cli $LAUNCH_STAGE STAGE …`, with this interpreter and the package below `root`. Neither
    interpreter nor launcher stands in a rule, where another path or another launcher would count as a change of the
    rule and re-run its jobs. Every stage watches this process and dies with it.
    """
    os.environ.update(guard.own_environment(), MLFLOW_EXPERIMENT_NAME=config.experiment)
    _prepend("PATH", Path(sys.executable).parent)
    _prepend("PYTHONPATH", root)
    if config.data_root:
        os.environ["SAMA_DATA_DIR"] = config.data_root
    for stage in LAUNCHABLE:
        launch = (
            f"launch --launcher {config.launcher.kind} --cpus {config.runtime.threads} --gpus {gpus}"
            f" --timeout-minutes {config.launcher.timeout_minutes} --logs {logs}/submitit --"
        )
        os.environ[f"LAUNCH_{stage.upper()}"] = launch if stage in config.launcher.stages else ""


def begin(settings: Path, text: str) -> None:
    """Hold the folder and save the configuration of the run beside its results, or stop with one line."""
    try:
        guard.hold_folder()
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
