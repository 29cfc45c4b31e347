"""`make reproduce`, killed with -9 and typed again, ends where an undisturbed run ends, byte for byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.workflow.clones import EXPERIMENT, MINIATURE, Clone, miniature

LONGER = {"training": {"steps": 400, "batch_size": 16, "log_every": 20, "checkpoint_every": 20}}
MOMENTS = ("checkpoints/*/meta_seed0/checkpoint.pt", "checkpoints/*/seed0_*/checkpoint.pt", "logs/*/report.log")


def make(clone: Clone) -> subprocess.Popen[bytes]:
    command = ["make", "reproduce", "TEXTS=", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.setup-done"]
    environment = {**os.environ, "PYTHONPATH": str(clone.folder)}
    log = (clone.folder / "make.log").open("ab")
    return subprocess.Popen(command, cwd=clone.folder, env=environment, stdout=log, stderr=log)


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def prepared(folder: Path) -> Clone:
    folder.mkdir()
    clone = miniature(folder)
    config = {**MINIATURE, **LONGER, "meta": LONGER, "launcher": {"kind": "local"}}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    return clone


@pytest.mark.long
def test_three_kills_change_nothing(tmp_path: Path) -> None:
    calm, killed = prepared(tmp_path / "calm"), prepared(tmp_path / "killed")
    assert make(calm).wait() == 0, (calm.folder / "make.log").read_text()[-3000:]
    for moment in MOMENTS:
        process = make(killed)
        deadline = time.monotonic() + 240
        while not list(killed.folder.glob(moment)):
            assert process.poll() is None, f"over before {moment}\n{(killed.folder / 'make.log').read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"waited for {moment} in vain"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(5)
        assert processes_in(killed.folder) == [], moment
    assert make(killed).wait() == 0, (killed.folder / "make.log").read_text()[-3000:]
    assert killed.content() == calm.content()
    assert f"{EXPERIMENT}/summary.json" in calm.content()
    assert killed.wanted() == set()
    assert processes_in(tmp_path) == []
