"""Passes over the examples, without a stage around them: whose part is whose, what is kept, and who tells of it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sama.images import ImageExamples
from sama.stages import _passes
from sama.stages._passes import Passes
from sama.stages._processes import Processes

CPU = torch.device("cpu")
LABELS = torch.arange(11)
EXAMPLES = ImageExamples(torch.zeros(11, 1, 2, 2, dtype=torch.uint8), LABELS, (0.0,), (1.0,))


class Passing:
    """Passes of one process in a folder that several share; counts the models and the examples that it asks for."""

    def __init__(self, folder: Path, rank: int, world_size: int, key: str = "key") -> None:
        self.passes = Passes(folder, key, Processes(rank, world_size), CPU)
        self.models = self.asked = 0

    def model(self) -> nn.Module:
        self.models += 1
        return nn.Identity()

    def say(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        assert not model.training
        self.asked += len(labels)
        return 10 * labels

    def over(self, *, shared: bool = True) -> list[int]:
        """The examples whose answers it got; every answer must be its example's."""
        rows, answers = self.passes.over("one", self.model, self.say, EXAMPLES, batch_size=2, shared=shared)
        assert answers.tolist() == (10 * rows).tolist()
        return rows.tolist()


def test_processes_of_any_number_keep_their_parts_apart_in_one_folder(tmp_path):
    assert Passing(tmp_path, 0, 2).over() == [0, 1, 4, 5, 8, 9]
    assert Passing(tmp_path, 0, 1).over() == list(range(11))
    assert Passing(tmp_path, 1, 2).over() == [2, 3, 6, 7, 10]
    assert Passing(tmp_path, 2, 3).over(shared=False) == list(range(11))
    Passing(tmp_path, 0, 1).passes.finish()
    assert not tmp_path.exists()


def test_a_pass_that_is_done_needs_no_model_and_one_in_parts_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(_passes, "SAVE_EVERY", 4)  # examples: two chunks
    asked_for = 5

    class Dying(Passing):
        def say(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            if self.asked >= asked_for:
                raise KeyboardInterrupt
            return super().say(model, inputs, labels)

    first = Dying(tmp_path, 0, 1)
    with pytest.raises(KeyboardInterrupt):
        first.over()
    second, third = Passing(tmp_path, 0, 1), Passing(tmp_path, 0, 1)
    assert second.over() == third.over() == list(range(11))
    assert (first.asked, second.asked, third.asked) == (6, 7, 0)  # of the third chunk nothing was kept
    assert (first.models, second.models, third.models) == (1, 1, 0)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_another_run_or_other_threads_left_is_asked_for_again(tmp_path, monkeypatch):
    def asked(key: str) -> int:
        passing = Passing(tmp_path, 0, 1, key)
        assert passing.over() == list(range(11))
        return passing.asked

    assert [asked("key"), asked("key"), asked("other"), asked("other")] == [11, 0, 11, 0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    assert asked("other") == 11


def test_of_what_all_do_alike_the_first_tells(tmp_path, capsys):
    told = {}
    for rank, shared in ((0, True), (1, True), (1, False)):
        Passing(tmp_path / f"{rank}{shared}", rank, 2).over(shared=shared)
        told[rank, shared] = "one: pass: step" in capsys.readouterr().err
    assert told == {(0, True): True, (1, True): False, (1, False): True}
