"""What launcher, workflow and Slurm cost a job, measured with tiny cells on the throwaway cluster of the tests.

`python -m benchmarks.cluster_overhead [CELLS] [--json FILE]` runs CELLS (200) cells that write a file, through
Snakemake: in place (`--cores 2`, no launcher), as jobs of Slurm, and as job arrays (`--cores 64`), and prints a
markdown table. Wall: of the whole run. Workflow CPU: of Snakemake and all below it (the launchers; in place the cells
too). Cell CPU: of the process that runs the cell, until it has. Each divided by CELLS. Memory: what a waiting launcher
has to itself (USS), the largest seen.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.slurm import REPOSITORY, Slurm

STAGE = """
import time
from pathlib import Path


def run(*, out: Path) -> None:
    out.parent.mkdir(exist_ok=True)
    with open(f"{out}.runs", "a") as stream:
        stream.write("x")
    out.write_text(str(time.process_time()))
"""
PROGRAM = """
from sama import cli

cli.STAGES["cell"] = cli.Stage("cell_stage", "a tiny cell")
if __name__ == "__main__":
    cli.main()
"""
SNAKEFILE = """
rule all:
    input:
        expand("MODE/{{number}}.txt", number=range({cells})),


rule cell:
    output:
        "MODE/{{number}}.txt",
    shell:
        "exec {python} program.py {launch} cell --out {{output}} 2> MODE_{{wildcards.number}}.log"
"""
SLURM = "launch --launcher slurm --memory-mb 500"
MODES = {
    "in place": ("", 2),
    "jobs": (f"{SLURM} --", 64),
    "arrays": (f"{SLURM} --array-limit 16 --", 64),
}


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """Of the processes that live, and of their children that have ended."""
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def launchers_memory(workflow: psutil.Process) -> list[int]:
    """Bytes that each waiting launcher has to itself."""
    found = []
    for process in workflow.children(recursive=True):
        try:
            if "launch" in process.cmdline()[2:3]:
                found.append(process.memory_full_info().uss)
        except (psutil.Error, IndexError):
            continue
    return found


def measure(mode: str, cells: int, cluster: Slurm) -> dict[str, Any]:
    """One run of all cells in an empty folder."""
    launch, cores = MODES[mode]
    with tempfile.TemporaryDirectory(prefix="sama-overhead-") as name:
        folder = Path(name)
        (folder / "cell_stage.py").write_text(STAGE, encoding="utf-8")
        (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
        rules = SNAKEFILE.format(cells=cells, python=sys.executable, launch=launch).replace("MODE", mode.split()[-1])
        (folder / "Snakefile").write_text(rules, encoding="utf-8")
        path = os.pathsep.join([name, str(REPOSITORY)])
        environment = {**os.environ, **cluster.environment, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        start = time.monotonic()
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--scheduler", "greedy", "--quiet", "all"]
        workflow = psutil.Popen(command, cwd=folder, env=environment)
        workflow_cpu, memory, waiting = 0.0, 0, 0
        while workflow.poll() is None:
            workflow_cpu = cpu_seconds([workflow, *workflow.children(recursive=True)])
            seen = launchers_memory(workflow)
            memory, waiting = max([memory, *seen]), max(waiting, len(seen))
            time.sleep(1)
        wall = time.monotonic() - start
        if workflow.returncode:
            raise subprocess.CalledProcessError(workflow.returncode, command)
        runs = [path.read_text(encoding="utf-8") for path in folder.glob("*/*.runs")]
        if runs != ["x"] * cells:
            raise RuntimeError(
                f"{mode}: expected every one of {cells} cells once, got {len(runs)}: {sorted(set(runs))}"
            )
        cell_cpu = sum(float(path.read_text(encoding="utf-8")) for path in folder.glob("*/*.txt"))
        submissions = list(folder.glob("logs/slurm/**/[0-9]*_submission.sh"))
    return {
        "wall": round(wall, 1),
        "wall_a_cell": round(wall / cells, 3),
        "workflow_cpu_a_cell": round(workflow_cpu / cells, 3),
        "cell_cpu_a_cell": round(cell_cpu / cells, 3),
        "launcher_megabytes": round(memory / 2**20, 1),
        "launchers_at_a_time": waiting,
        "sbatch_calls": len(submissions),
    }


def main() -> None:
    """Measure every mode, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_overhead", description=__doc__)
    parser.add_argument("cells", type=int, nargs="?", default=200)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    given = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory(prefix="sama-slurm-") as folder, Slurm(Path(folder, "cluster")) as cluster:
        for mode in given.modes:
            measured[mode] = measure(mode, given.cells, cluster)
            print(mode, measured[mode], file=sys.stderr, flush=True)
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[1]}
    if given.json:
        text = json.dumps({"cells": given.cells, "hardware": hardware, "modes": measured}, indent=2)
        given.json.write_text(f"{text}\n", encoding="utf-8")
    print("| | wall, s | a cell | workflow CPU, s a cell | cell CPU, s a cell | launcher, MB | sbatch |")
    print("|---|---|---|---|---|---|---|")
    for mode, row in measured.items():
        cpu = f"{row['workflow_cpu_a_cell']} | {row['cell_cpu_a_cell']}"
        print(f"| {mode} | {row['wall']} | {row['wall_a_cell']} | {cpu} | {row['launcher_megabytes']} |", end="")
        print(f" {row['sbatch_calls']} |")


if __name__ == "__main__":
    main()
