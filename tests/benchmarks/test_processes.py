import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from benchmarks.processes import Traffic, run
from sama import guard
from sama.errors import SamaError


def exchange(factor: float) -> tuple[int, float, dict[str, int]]:
    mine = torch.full((3,), factor * (dist.get_rank() + 1))
    with Traffic() as traffic:
        dist.all_reduce(mine)
        dist.broadcast(torch.zeros(2, dtype=torch.float64), 0)
    return dist.get_rank(), mine[0].item(), traffic.bytes


def fail() -> None:
    if dist.get_rank() == 1:
        raise ValueError("the second one fails")


def wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def test_results_come_by_rank_and_bytes_by_collective():
    bytes_moved = {"allreduce": 12, "broadcast": 16}
    assert run(2, exchange, 10.0) == [(0, 30.0, bytes_moved), (1, 30.0, bytes_moved)]


def test_an_error_in_one_process_ends_all_of_them():
    with pytest.raises(ProcessRaisedException, match="the second one fails"):
        run(2, fail)


def gone(pids: list[int], seconds: float = 60) -> bool:
    until = time.monotonic() + seconds
    while any(guard.alive(guard.identity(pid)) for pid in pids if Path(f"/proc/{pid}").exists()):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_they_end_when_their_time_is_up(tmp_path):
    with pytest.raises(SamaError, match="2 processes of wait: not done after 1 s"):
        run(2, wait, tmp_path, seconds=1)
    assert gone([int(path.name) for path in tmp_path.iterdir()])


def test_they_end_with_the_process_that_started_them(tmp_path):
    code = f"from benchmarks.processes import run; from {__name__} import wait; from pathlib import Path\n"
    code = f"{code}if __name__ == '__main__': run(2, wait, Path({str(tmp_path)!r}))"
    script = tmp_path.with_suffix(".py")
    script.write_text(code)
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": root}) as parent:
        try:
            until = time.monotonic() + 120
            while len(pids := [int(path.name) for path in tmp_path.iterdir()]) < 2:
                assert parent.poll() is None and time.monotonic() < until
                time.sleep(0.1)
        finally:
            parent.send_signal(signal.SIGKILL)
    assert gone(pids)
