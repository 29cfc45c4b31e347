"""Meta training by several processes: what it agrees with, who writes, and that all of them stop at one step."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from sama import interruption
from sama.bilevel import checkpoint
from sama.config import Config
from sama.errors import SamaError
from sama.metrics import Progress
from sama.stages import meta_train, prepare
from sama.stages._common import Run, machine_key
from sama.stages._processes import Handed, Processes
from tests.bilevel import processes
from tests.stages.shared_training import averaged, configured, in_float64, require_agreement, results
from tests.stages.test_learning import contents, meta_trained
from tests.toy_pipeline import wait_until


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare.run(out=folder, seeds=(0,), data_root=None, data=configured().data)
    return folder


def in_a_process(data: Path, folder: Path, plain: Config, dropped: Config) -> list[int]:
    """Train with dropout; the same, interrupted by a request that only the last process gets; float64 without."""
    rank = dist.get_rank()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(dist.get_world_size())}
    written = meta_train.save_weights

    def by_the_first(path, module):
        assert rank == 0, "another process writes"
        written(path, module)

    meta_train.save_weights = by_the_first
    train(data, folder / "calm", dropped)
    update, steps = Progress.update, []

    def ask(self, step, **numbers):
        steps.append(step)
        if step == 6 and rank == dist.get_world_size() - 1:
            interruption.request()
        update(self, step, **numbers)

    Progress.update = ask
    with pytest.raises(interruption.Interrupted):
        train(data, folder / "stopped", dropped)
    Progress.update = update
    interruption.request(False)
    dist.barrier()
    torch.manual_seed(4711)  # what the next process starts with
    train(data, folder / "stopped", dropped)
    in_float64(setattr)
    train(data, folder / "plain", plain)
    return steps


def train(data: Path, out: Path, config: Config) -> None:
    out.mkdir(exist_ok=True)
    meta_trained(data, out, config)


def test_two_processes_agree_with_one_that_averages_and_stop_together(data, tmp_path, monkeypatch):
    plain, dropped = configured(), configured()
    dropped = dropped.model_copy(update={"model": dropped.model.model_copy(update={"drop_rate": 0.3})})
    (tmp_path / "meeting").mkdir()
    told = processes.run(2, in_a_process, tmp_path / "meeting", data, tmp_path, plain, dropped)
    for steps in told:
        assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]
    require_agreement(results(tmp_path / "plain"), averaged(data, plain, 2, monkeypatch))
    calm, stopped = contents(tmp_path / "calm"), contents(tmp_path / "stopped")
    assert stopped == calm
    assert b'"processes": 2' in calm["summary.json"]
    assert not (tmp_path / "stopped-work").exists()


def test_one_process_that_averages_one_shard_is_the_stage(data, tmp_path, monkeypatch):
    """So that what the others are compared with is the stage and not another one."""
    expected = averaged(data, configured(), 1, monkeypatch)
    in_float64(monkeypatch.setattr)
    meta_trained(data, tmp_path / "one", configured())
    require_agreement(results(tmp_path / "one"), expected)


def test_micro_batches_that_cannot_be_shared_are_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    message = r"^meta.training.accumulate: 4 micro-batches a step cannot be shared by 3 processes"
    with pytest.raises(SamaError, match=message):
        meta_trained(data, tmp_path / "out", configured())
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = configured()
    alone = config.model_copy(update={"meta": config.meta.model_copy(update={"accumulate": 1})})
    with pytest.raises(SamaError, match=r"^meta.accumulate: 1 micro-batches a step cannot be shared by 2 processes"):
        meta_trained(data, tmp_path / "out", alone)


def gather_late(folder: Path) -> str:
    """The second process comes only when the first has answered a signal while it waited."""
    rank = dist.get_rank()
    answered = folder / "answered"
    if rank == 0:
        signal.signal(signal.SIGALRM, lambda number, frame: answered.touch())
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    else:
        wait_until(answered.exists, "the answer", seconds=60)
    try:
        return str(Processes(rank, 2).gather(rank))
    except Handed:
        return "handed"


def test_a_process_that_waits_for_the_others_answers_signals(tmp_path):
    (tmp_path / "meeting").mkdir()
    assert processes.run(2, gather_late, tmp_path / "meeting", tmp_path) == ["[0, 1]", "handed"]


def see_other_folders(folder: Path) -> str:
    rank = dist.get_rank()
    own = folder / str(rank)
    ours, device = Processes(rank, 2), torch.device("cpu")
    if rank == 0:
        key = machine_key("key", device, 2)
        checkpoint.save(own / "checkpoint.pt", {"step": 5, "state": {}}, key)
    with pytest.raises(SamaError) as refused:
        Run(own, "key", device, processes=ours)
    return str(refused.value)


def test_processes_that_do_not_share_a_folder_are_one_line(tmp_path):
    (tmp_path / "meeting").mkdir()
    for message in processes.run(2, see_other_folders, tmp_path / "meeting", tmp_path):
        assert message.endswith("steps 5, 0, expected one folder that all of them share")
