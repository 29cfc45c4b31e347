"""The workflow with `profiles/slurm` against the same one on two cores: the same bytes."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.cluster.slurm import Slurm
from tests.toy_pipeline import wait_until
from tests.workflow.clones import EXPERIMENT, MINIATURE, ROOT, Clone, miniature

LAUNCHED = {"kind": "slurm", "stages": ["prepare", "meta_train", "retrain", "evaluate"]}
HERE = "SAMA_CORES_RESULTS"  # the folder of a finished `make reproduce` of the default experiment, to save its time
SAME = ("*summary.json", "*.safetensors", "*.parquet", "*metrics.jsonl")


def same(on_slurm: Path, on_cores: Path) -> int:
    """Require each file of results to have the same bytes; returns how many models there are."""
    names = {path.relative_to(on_slurm) for pattern in SAME for path in on_slurm.rglob(pattern)}
    others = {path.relative_to(on_cores) for pattern in SAME for path in on_cores.rglob(pattern)}
    assert names == others
    different = [
        str(name) for name in sorted(names) if (on_slurm / name).read_bytes() != (on_cores / name).read_bytes()
    ]
    assert different == []
    return sum(name.suffix == ".safetensors" for name in names)


def started(clone: Clone, slurm: Slurm, *wanted: str, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The workflow, as the README says for a cluster, in a session of its own."""
    command = ["snakemake", *wanted, "--workflow-profile", "profiles/slurm", "--quiet", "rules", *more]
    environment = {**os.environ, **slurm.environment, "PYTHONPATH": str(clone.folder)}
    environment["PATH"] = f"{Path(clone.python).parent}{os.pathsep}{environment['PATH']}"
    return subprocess.Popen(
        command,
        cwd=clone.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def on_slurm(clone: Clone, slurm: Slurm, *wanted: str, more: Sequence[str] = ()) -> None:
    """Run the workflow to its end."""
    process = started(clone, slurm, *wanted, more=more)
    said, _ = process.communicate()
    assert process.returncode == 0, said[-6000:]


def jobs(clone: Clone) -> dict[str, int]:
    """How many jobs, or tasks of arrays, of Slurm each stage was."""
    found: dict[str, int] = {}
    for path in (clone.folder / "logs" / EXPERIMENT / "slurm").glob("*/*/job.json"):
        found[path.parts[-3]] = found.get(path.parts[-3], 0) + 1
    return found


def test_trainings_on_slurm_give_the_bytes_of_two_cores(slurm: Slurm, tmp_path: Path) -> None:
    here = miniature(tmp_path / "here")
    there = tmp_path / "there"
    shutil.copytree(here.folder, there)
    wanted = [f"results/{EXPERIMENT}/{path}" for path in ("meta/seed0/summary.json", "models/seed0/full/summary.json")]
    here.run("snakemake", *wanted, "--cores", "2", "--quiet", "rules")
    clone = Clone(there)
    on_slurm(clone, slurm, *wanted, more=["--config", f"launcher={json.dumps(LAUNCHED)}"])
    assert same(clone.results, here.results) == 3
    assert jobs(clone) == {"prepare": 1, "meta-train": 1, "retrain": 1}


@pytest.mark.long
def test_the_default_experiment_on_slurm_gives_the_bytes_of_two_cores(slurm: Slurm, tmp_path: Path) -> None:
    """In full: 18 minutes of a core and more each way; `SAMA_CORES_RESULTS` names results of `--cores 2` that stand."""
    clone = miniature(tmp_path / "there")
    shutil.copy2(ROOT / "config/config.yaml", clone.folder / "config/config.yaml")
    clone.run("git", "commit", "--quiet", "--all", "--message", "in full")
    if given := os.environ.get(HERE):
        expected = Path(given)
        assert (expected / "summary.json").exists(), f"{HERE}={given}: no finished experiment"
    else:
        here = Clone(tmp_path / "here")
        shutil.copytree(clone.folder, here.folder)
        here.run("snakemake", "--cores", "2", "--quiet", "rules")
        expected = here.results
    on_slurm(clone, slurm)
    assert same(clone.results, expected) > 0
    config = yaml.safe_load((clone.folder / "config/config.yaml").read_text())
    seeds, methods = len(config["seeds"]), len(config["scores"]["methods"])
    cells = 2 + methods * len(config["selection"]["pruning_ratios"])
    assert jobs(clone) == {"meta-train": seeds, "score": seeds * methods, "retrain": seeds * cells}
    assert MINIATURE["experiment"] == config["experiment"]


@pytest.mark.long
def test_killed_with_all_its_launchers_it_goes_on_and_no_job_runs_twice(slurm: Slurm, tmp_path: Path) -> None:
    clone = miniature(tmp_path)
    wanted = f"results/{EXPERIMENT}/models/seed0/full/summary.json"
    killed = started(clone, slurm, wanted)
    try:
        wait_until(lambda: jobs(clone) == {"retrain": 1}, "the job", seconds=120)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
    results = clone.folder / "logs" / EXPERIMENT / "slurm" / "retrain"
    wait_until(lambda: len(list(results.glob("*/*_result.pkl"))) == 1, "the job to end", seconds=120)
    on_slurm(clone, slurm, wanted)
    assert (clone.folder / wanted).exists()
    assert len(list(results.glob("*/*_result.pkl"))) == 1
