"""Jobs on a real Slurm, through submitit."""

from pathlib import Path
from typing import Any

import pytest
from submitit import SlurmExecutor

from tests.cluster import jobs
from tests.cluster.slurm import Slurm
from tests.toy_pipeline import wait_until

FIRST, SECOND = "127.0.0.11", "127.0.0.12"


def executor(folder: Path, **parameters: Any) -> SlurmExecutor:
    made = SlurmExecutor(folder)
    made.update_parameters(**{"time": 60, "mem": "500MB", **parameters})
    return made


def results(job: Any, seconds: float = 100) -> list[Any]:
    """What the tasks returned, once they have; less than the 120 s that Slurm by default waits before it requeues."""
    wait_until(job.done, f"job {job.job_id}", seconds)
    return job.results()


def state(job: Any) -> str:
    """As accounting has it, which lags behind."""
    return job.get_info(mode="force").get("State", "")


def wait_for_state(job: Any, expected: str, seconds: float = 60) -> None:
    wait_until(lambda: state(job).startswith(expected), f"{expected}, not {state(job)}", seconds)


def test_job_runs_with_its_gpu_and_is_accounted(on_slurm: Slurm, tmp_path: Path) -> None:
    job = executor(tmp_path, gpus_per_node=1, nodelist=SECOND).submit(jobs.where_am_i)
    expected = {"SLURMD_NODENAME": SECOND, "CUDA_VISIBLE_DEVICES": "0"}
    nodes = [f"{name}{node}" for name in ("normal*", "scavenger", "urgent") for node in (FIRST, SECOND)]
    assert results(job) == [{**expected, "nodes": nodes}]
    wait_for_state(job, "COMPLETED")


def test_ranks_of_two_nodes_meet(on_slurm: Slurm, tmp_path: Path) -> None:
    job = executor(tmp_path, nodes=2, ntasks_per_node=2, mem="3GB").submit(jobs.sum_of_ranks)
    assert results(job) == [{"rank": rank, "local_rank": rank % 2, "sum": 1 + 2 + 3 + 4} for rank in range(4)]


def test_preempted_job_is_told_and_resumes(on_slurm: Slurm, tmp_path: Path) -> None:
    started = tmp_path / "started"
    job = executor(tmp_path, exclusive=True, nodelist=FIRST).submit(jobs.Resume(started, times=1))
    wait_until(started.exists, "the job to start", seconds=60)
    urgent = executor(tmp_path, exclusive=True, nodelist=FIRST, partition="urgent").submit(jobs.where_am_i)
    assert results(urgent)[0]["SLURMD_NODENAME"] == FIRST
    assert not job.done()
    assert results(job) == [1]
    assert "this job is preempted" in job.paths.stderr.read_text()
    wait_for_state(job, "COMPLETED")


def test_cancelled_job_ends_and_says_by_whom(on_slurm: Slurm, tmp_path: Path) -> None:
    job = executor(tmp_path).submit(jobs.sleep, tmp_path / "started", 600)
    wait_until((tmp_path / "started").exists, "the job to start", seconds=60)
    on_slurm.ask("scancel", job.job_id)
    wait_for_state(job, "CANCELLED by")


def test_job_over_its_memory_is_ended(on_slurm: Slurm, tmp_path: Path) -> None:
    job = executor(tmp_path, mem="200MB").submit(jobs.fill, 400)
    wait_for_state(job, "FAILED")
    assert "exceeded memory limit" in job.paths.stderr.read_text(), "accounting does not say why"


@pytest.mark.long
def test_preempted_job_that_stays_is_requeued(on_slurm: Slurm, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    job = executor(tmp_path, exclusive=True, nodelist=FIRST).submit(jobs.stay, notes)
    wait_until(notes.exists, "the job to start", seconds=60)
    urgent = executor(tmp_path, exclusive=True, nodelist=FIRST, partition="urgent").submit(jobs.where_am_i)
    wait_until(lambda: "SIGUSR2" in notes.read_text(), "the signal", seconds=60)
    assert not urgent.paths.result_pickle.exists()
    assert results(urgent)[0]["SLURMD_NODENAME"] == FIRST
    assert results(job)[0][:3] == ["started", "SIGUSR2", "SIGTERM"]
    wait_for_state(job, "COMPLETED")


@pytest.mark.long
def test_time_limit_tells_and_ends(on_slurm: Slurm, tmp_path: Path) -> None:
    limit = {"time": 1, "signal_delay_s": 50}
    staying = executor(tmp_path, **limit).submit(jobs.stay, tmp_path / "notes")
    resuming = executor(tmp_path, **limit).submit(jobs.Resume(tmp_path / "started", times=2))
    wait_for_state(staying, "TIMEOUT", seconds=150)
    assert (tmp_path / "notes").read_text().split()[:3] == ["started", "SIGUSR2", "SIGTERM"]
    assert results(resuming) == [2]
    wait_for_state(resuming, "COMPLETED")
