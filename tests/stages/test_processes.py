"""Which process of a stage this is, and what it may do alone; several at work are tested with the stages."""

import pytest
import torch
import torch.distributed as dist

from sama.errors import SamaError
from sama.stages._processes import Handed, Processes, processes


def in_environment(monkeypatch, **variables: str) -> Processes:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return processes()


def test_torchrun_says_which_process_this_is_and_without_it_there_is_one(monkeypatch):
    assert in_environment(monkeypatch, RANK="1", WORLD_SIZE="3") == Processes(1, 3)
    for alone in ({}, {"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "", "WORLD_SIZE": "2"}):
        assert in_environment(monkeypatch, **alone) == Processes(0, 1)


@pytest.mark.parametrize(
    ("rank", "world_size", "message"),
    [
        ("first", "2", r"RANK and WORLD_SIZE: expected two numbers, as torchrun sets them, got \['first', '2'\]"),
        ("2", "2", r"RANK: expected 0\.\.1, got 2"),
        ("-1", "2", r"RANK: expected 0\.\.1, got -1"),
    ],
)
def test_an_environment_that_names_no_process_is_one_line(monkeypatch, rank, world_size, message):
    with pytest.raises(SamaError, match=message):
        in_environment(monkeypatch, RANK=rank, WORLD_SIZE=world_size)


def test_one_process_gathers_by_itself_and_only_the_first_goes_on():
    with Processes().joined(torch.device("cpu")):
        assert not dist.is_initialized()
        assert Processes().gather("mine") == ["mine"]
    Processes(0, 2).only_first()
    with pytest.raises(Handed):
        Processes(1, 2).only_first()


def test_a_process_without_a_gpu_of_its_own_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with (
        pytest.raises(SamaError, match="process 4: expected a GPU of its own, got 1 here"),
        Processes(4, 8).joined(torch.device("cuda")),
    ):
        pass
