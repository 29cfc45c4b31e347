"""A folder with a stage of its own and a Snakefile that launches it, for tests that run and kill real processes."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

PYTHON = sys.executable
REPOSITORY = Path(__file__).parents[1]

STAGE = '''
import os, subprocess, sys, time
from pathlib import Path
from typing import Literal

from sama.config import Config, RuntimeConfig, TrainingConfig
from sama.errors import SamaError


def run(
    *,
    training: TrainingConfig,
    runtime: RuntimeConfig,
    out: Path,
    data_root: Path | None,
    seeds: tuple[int, ...] = (0,),
    ratios: tuple[float, ...] = (0.5,),
    files: tuple[Path, ...] = (),
    ratio: float | None = None,
    wanted: bool = False,
    mode: Literal["ok", "mendable", "bug", "eof", "sleep", "killed", "full", "interrupt", "greedy", "wait"] = "ok",
) -> None:
    """Write what it was given.

    Nothing else happens here.

    Args:
        out: the file
            that is written
        seeds: replicates
    """
    print("begun", flush=True)
    if mode == "mendable":
        print("on the way", file=sys.stderr)
        raise SamaError("the label 7 of row 3\\nis outside of 0..4")
    if mode == "bug":
        raise RuntimeError("a mistake of ours")
    if mode == "eof":
        raise EOFError("a short file")
    if mode == "killed":
        os.kill(os.getpid(), 9)
    if mode == "interrupt":
        raise KeyboardInterrupt
    if mode == "greedy":
        held = [b"x" * 2**20 for _ in range(300)]
        time.sleep(10)
    if mode == "wait":
        with open("begun.txt", "a") as stream:
            print(out, file=stream)
        Path("asleep").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.05)
    if mode == "full":
        Path("/dev/full").write_text("x")
    seen = dict(steps=training.steps, root=data_root, seeds=seeds, ratios=ratios, files=files, ratio=ratio)
    seen |= dict(wanted=wanted, gpus=os.environ.get("CUDA_VISIBLE_DEVICES"), threads=os.environ["OMP_NUM_THREADS"])
    seen |= dict(torch="torch" in sys.modules)
    if mode != "sleep":
        out.write_text(repr(seen))
        return
    from sama.files import atomic  # here, because it imports pandas

    with atomic(out) as temporary:
        if not Path("awake").exists():
            subprocess.Popen(["sleep", "60"])
            Path("asleep").write_text(str(os.getpid()))
            time.sleep(60)
        temporary.write_text(repr(seen))
'''

PROGRAM = """
from sama import cli

cli.STAGES["toy"] = cli.Stage("toy_stage", "a toy")
if __name__ == "__main__":
    cli.main()
"""

SNAKEFILE = f"""
import os
from sama import guard

os.environ.update(guard.own_environment())


onstart:
    guard.hold_folder()


rule toy:
    output:
        "results/toy.txt",
    shell:
        "{PYTHON} program.py launch --launcher local --logs logs -- toy --out {{output}} --mode sleep > log.txt 2>&1"
"""

MAKEFILE = f"reproduce:\n\t@exec {PYTHON} -m sama.cli pipeline -- --cores 1 --quiet\n\t@echo done\n"


class Toy:
    """The folder, and what a test does in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in {
            "toy_stage.py": STAGE,
            "program.py": PROGRAM,
            "Snakefile": SNAKEFILE,
            "Makefile": MAKEFILE,
            "config/config.yaml": "runtime: {threads: 1}\n",
        }.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
        self.started: list[subprocess.Popen[str]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """Ours without what an outer pipeline or user has set."""
        own = {k: v for k, v in os.environ.items() if not k.startswith(("SAMA_", "CUDA_", "OMP_", "MAKE"))}
        return {**own, "PYTHONPATH": f"{self.folder}{os.pathsep}{REPOSITORY}", **more}

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command; whatever it leaves is killed when the test ends."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.started.append(process)
        return process

    def clean_up(self) -> None:
        """Kill what still runs in the folder, whoever started it."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if Path(process.cwd()) == self.folder:
                    process.kill()
        for process in self.started:
            process.communicate()

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`sama ARGUMENTS` with the toy stage, to its end."""
        command = [PYTHON, "program.py", *arguments]
        where = self.environment(**environment)
        return subprocess.run(command, cwd=self.folder, env=where, capture_output=True, text=True, timeout=60)

    def wait_asleep(self) -> psutil.Process:
        """The stage's process, once it is in the middle of its work."""
        marker = self.folder / "asleep"
        wait_until(lambda: marker.exists() and marker.read_text() != "", "the stage to begin", seconds=30)
        return psutil.Process(int(marker.read_text()))


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll until the condition holds, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s for {what}")
        time.sleep(0.05)


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def left(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; zombies do not."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if runs(process)]
