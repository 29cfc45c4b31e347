"""The recorder: every visit of every example, once, under its own index, from the forwards of training itself."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sama.images import ImageExamples
from sama.observation.recorder import Recorder
from sama.training import train
from tests.test_training import recipe

LN3 = math.log(3)


def test_by_hand():
    recorder = Recorder(torch.tensor([0, 1, 2]), classes=3, visits=2)
    recorder(torch.tensor([2, 0]), torch.tensor([[0.0, 1.0, 0.5], [5.0, 5.0, -90.0]]))
    recorder(torch.tensor([1]), torch.tensor([[0.0, 0.0, -90.0]]))
    recorder(torch.tensor([1, 0]), torch.tensor([[LN3, 0.0, -90.0], [9.0, 5.0, 2.0]]))
    np.testing.assert_allclose(recorder.records["margin"][0], [0.0, 0.0, -0.5], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(recorder.records["margin"][1, :2], [4.0, -LN3], rtol=1e-6)
    np.testing.assert_allclose(recorder.records["probability"][:, 1], [0.5, 0.25], rtol=1e-6)
    # from (1/2, 1/2) to (3/4, 1/4)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    np.testing.assert_allclose(recorder.records["divergence"][:, 1], [np.nan, expected], rtol=1e-5)
    assert torch.isnan(recorder.records["margin"][1, 2])  # not seen again


def test_an_example_that_a_batch_has_twice_is_two_visits_in_their_order():
    recorder = Recorder(torch.zeros(3, dtype=torch.int64), classes=2, visits=3)
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0], [6.0, 0.0]])
    recorder(torch.tensor([1, 0, 1, 2, 1, 1]), logits)  # the fourth visit of 1 is one too many
    assert recorder.records["margin"][:, 1].tolist() == [1.0, 3.0, 5.0]
    assert recorder.records["margin"][0].tolist() == [2.0, 1.0, 4.0]
    assert recorder.seen.tolist() == [1, 3, 1]


def test_memory_does_not_grow_with_visits_times_classes():
    recorder = Recorder(torch.zeros(10, dtype=torch.int64), classes=7, visits=50)
    assert sum(tensor.numel() for tensor in recorder.state_dict().values()) == 10 * (3 * 50 + 7 + 1)


@pytest.mark.parametrize(
    ("classes", "visits", "message"), [(2, 0, "every example at least once"), (1, 3, "at least two classes, got 1")]
)
def test_bad_input(classes, visits, message):
    with pytest.raises(ValueError, match=message):
        Recorder(torch.zeros(3, dtype=torch.int64), classes, visits)


def test_another_run_s_state_is_refused():
    state = Recorder(torch.zeros(3, dtype=torch.int64), 2, 4).state_dict()
    with pytest.raises(ValueError, match=r"has seen of shape \[3\], expected \[2\]: it belongs to another run"):
        Recorder(torch.zeros(2, dtype=torch.int64), 2, 4).load_state_dict(state)
    recorder = Recorder(torch.zeros(3, dtype=torch.int64), 2, 4)
    recorder(torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    kept = recorder.state_dict()
    recorder(torch.tensor([0]), torch.tensor([[1.0, 0.0]]))
    assert kept["seen"].tolist() == [1, 0, 0]  # a state is a copy


def pictures(n=23, classes=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return ImageExamples(images, torch.randint(0, classes, (n,), generator=generator), (0.5,), (0.25,))


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(("batch_size", "accumulate"), [(4, 1), (8, 2), (46, 1)])
def test_training_shows_each_example_once_a_permutation_and_is_not_disturbed(batch_size, accumulate):
    examples, device = pictures(), torch.device("cpu")
    steps = 3 * 23 // batch_size + 1
    chosen = recipe(steps=steps, batch_size=batch_size, accumulate=accumulate)
    recorder = Recorder(examples.labels, 4, 3)
    calm, watched = network(), network()
    cost = train(calm, examples, chosen, seed=5, device=device)
    assert train(watched, examples, chosen, seed=5, device=device, observe=recorder) == cost
    assert all(
        torch.equal(a, b) for a, b in zip(calm.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert recorder.seen.tolist() == [3] * 23
    assert not torch.isnan(recorder.records["margin"]).any()
    assert not torch.isnan(recorder.records["divergence"][1:]).any()


def test_records_stand_under_the_example_s_own_index():
    examples, device = pictures(), torch.device("cpu")
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    with torch.no_grad():
        logits = model(examples.inputs(torch.arange(23), device))
    chosen = recipe(steps=12, batch_size=4, optimizer={"learning_rate": 1e-12})  # it says the same at every visit
    recorder = Recorder(examples.labels, 4, 2)
    train(model, examples, chosen, seed=5, device=device, observe=recorder)
    expected = logits.softmax(dim=-1)[torch.arange(23), examples.labels]
    assert len(set(expected.tolist())) == 23
    for visit in recorder.records["probability"]:
        torch.testing.assert_close(visit, expected)
    torch.testing.assert_close(recorder.records["divergence"][1], torch.zeros(23), atol=1e-6, rtol=0)
