"""The benchmark of what a job costs runs, with every cell once."""

import pytest

from benchmarks.cluster_overhead import measure
from tests.cluster.slurm import Slurm


@pytest.mark.long
def test_cells_of_the_benchmark_are_packed_and_measured(slurm: Slurm) -> None:
    measured = measure("arrays", 6, slurm)
    assert measured["sbatch_calls"] < 6
    assert measured["launchers_at_a_time"] > 1
    assert measured["cell_cpu_a_cell"] > 0
    assert 0 < measured["launcher_megabytes"] < 60, "it imports no torch, pandas or submitit"
