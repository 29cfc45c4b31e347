"""Stages whose work several ranks share, on the nodes of a real Slurm."""

import json
from pathlib import Path

import pytest

from tests.cluster.slurm import Slurm
from tests.cluster.test_launch_slurm import SLURM, _empty, job_of, logged, queue, slowed
from tests.stages.shared_training import averaged, configured, require_agreement, results, settings
from tests.stages.small_digits import DATA
from tests.toy_pipeline import PYTHON, Toy, wait_until

__all__ = ["_empty"]  # the fixture is in use here too

SLOW = """
import time
from sama.metrics import Progress
from sama.stages.meta_train import processes, run
from tests.stages.shared_training import in_float64

fast = Progress.update


def update(self, step, **numbers):
    time.sleep(0.1)
    fast(self, step, **numbers)


Progress.update = update
in_float64(setattr)
"""


@pytest.mark.long
def test_meta_training_of_two_nodes_is_interrupted_and_agrees_with_one_process_that_averages(
    toy: Toy, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = slowed(toy, settings(steps=24, checkpoint_every=10**6), SLOW)
    launch = (*SLURM, "--nodes", "2", "--tasks-per-node", "2", "--", "slow", *arguments)
    launcher = toy.start(PYTHON, "program.py", *launch, "--out", "out", "--work", "work", **slurm.environment)
    wait_until(lambda: logged(toy) >= 8, "the training to be under way", seconds=100)
    slurm.ask("scancel", "--signal=USR2", job_of(toy, "out"))
    wait_until(lambda: "PENDING" in queue(slurm, toy).values(), "the requeue", seconds=60)
    metrics = toy.folder / "work" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("{", '{"seen": 1, ', 1))  # lost by a run that begins anew
    _, errors = launcher.communicate(timeout=200)
    assert launcher.returncode == 0, errors
    assert errors.count("asked to stop") == 1
    assert "was requeued" in errors
    assert (toy.folder / "out" / "metrics.jsonl").read_text().startswith('{"seen": 1')
    assert json.loads((toy.folder / "out" / "summary.json").read_text())["processes"] == 4
    for rank in range(4):
        (log,) = toy.folder.glob(f"logs/slurm/slow/*/*_{rank}_log.err")
        assert log.read_text().count(f"process {rank} of 4: joined") == 2
        assert "step 24/24" in log.read_text()
    config = configured(steps=24, checkpoint_every=10**6)
    require_agreement(results(toy.folder / "out"), averaged(Path(toy.folder, "data"), config, 4, monkeypatch))


@pytest.mark.long
def test_scores_of_two_ranks_are_those_of_one_process(toy: Toy, slurm: Slurm) -> None:
    (toy.folder / "scores.yaml").write_text(
        json.dumps({"data": DATA, "scores": {"el2n": {"models": 3, "steps": 4}}, "runtime": {"device": "cpu"}})
    )
    done = toy.run("prepare", "--config", "scores.yaml", "--out", "data", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    images = ("--images", "data/images.npy", "--manifest", "data/seed0/manifest.parquet")
    score = ("score", "--config", "scores.yaml", *images, "--method", "el2n", "--seed", "0")
    for name, launch in (("one", ()), ("two", (*SLURM, "--nodes", "2", "--"))):
        where = ("--out", f"{name}.parquet", "--summary", f"{name}.json", "--work", f"work_{name}")
        process = toy.start(PYTHON, "program.py", *launch, *score, *where, **slurm.environment)
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    for kind in ("parquet", "json"):
        assert (toy.folder / f"two.{kind}").read_bytes() == (toy.folder / f"one.{kind}").read_bytes()
    logs = sorted(path.read_text() for path in toy.folder.glob("logs/slurm/score/*/*_log.err"))
    assert [f"process {rank} of 2: joined" in log for rank, log in enumerate(logs)] == [True, True]
