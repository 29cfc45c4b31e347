"""The generic adaptation by autodiff, for every class of torch that can be differentiated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sama.adaptation import Memory, autodiff, register
from sama.adaptation.registry import RULES, full_name
from sama.adaptation.replica import replicate
from tests.adaptation.cases import ALSO_DIFFERENTIABLE, OPTIONS, Last, assert_near

CLASSES = {**OPTIONS, **ALSO_DIFFERENTIABLE}


@pytest.fixture(autouse=True)
def by_autodiff(monkeypatch):
    monkeypatch.setattr("sama.adaptation.registry.RULES", dict(RULES))
    for kind in CLASSES:
        register(kind, autodiff)


def test_these_are_all_the_classes_that_torch_differentiates():
    import inspect

    found = {
        kind
        for kind in vars(torch.optim).values()
        if inspect.isclass(kind)
        and issubclass(kind, torch.optim.Optimizer)
        and "differentiable" in inspect.signature(kind.__init__).parameters
    }
    assert found == set(CLASSES)


@pytest.mark.parametrize("kind", list(CLASSES), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("steps", [1, 5])
def test_generic_autodiff_meets_the_step_of_torch(kind, steps):
    @settings(max_examples=8, deadline=None)
    @given(options=st.tuples(CLASSES[kind], CLASSES[kind]), seed=st.integers(0, 2**31 - 1))
    def holds(options, seed):
        last = Last(kind, list(options), steps, seed)
        fresh = kind is torch.optim.SGD and steps == 1
        truth = last.by_differences(h=1.0) if fresh else last.by_autodiff()
        assert_near(last.adapted(last.take()), truth, rtol=1e-11, atol=1e-12 if steps == 1 else 1e-15)

    holds()


def test_a_mixed_first_step_of_sgd_is_differentiated_right():
    """One parameter of a group steps for the first time while the other one has a buffer: dampening differs."""
    a, b = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = torch.optim.SGD([a, b], lr=0.5, momentum=0.8, dampening=0.25)
    a.grad = torch.ones(3)
    optimizer.step()
    before = Memory(frozenset(), replica=replicate(optimizer))
    gradients = [torch.full((3,), 2.0), torch.full((3,), 3.0)]
    assert before.replica is not None
    found = autodiff(before.replica, gradients, [torch.ones(3), torch.ones(3)])
    assert_near(
        [f for f in found if f is not None], [torch.full((3,), 0.375), torch.full((3,), 0.5)], rtol=1e-14, atol=0
    )


def test_nan_at_a_second_moment_of_zero_becomes_zero_and_other_nan_stays():
    def first_unseen(gradient):
        gradient.view(-1)[0] = 0.0
        return gradient

    last = Last(torch.optim.Adam, [{}, {}], 3, edit=first_unseen)
    raw = last.by_autodiff()
    assert raw[0].view(-1)[0].isnan()
    found = last.adapted(last.take())
    assert found[0].view(-1)[0] == 0
    assert_near([f.view(-1)[1:] for f in found], [f.view(-1)[1:] for f in raw], rtol=1e-12, atol=0)
    last = Last(torch.optim.Adam, [{}, {}], 3)
    last.gradients[0].view(-1)[0] = torch.nan
    assert last.adapted(last.take())[0].view(-1)[0].isnan()


def test_the_step_counter_is_taken_in_float64():
    """In float32, 1 − 0.999ᵗ is off by 1e-5 and so is D."""
    torch.set_default_dtype(torch.float32)
    single = Last(torch.optim.Adam, [{}, {}], 3)
    torch.set_default_dtype(torch.float64)
    double = Last(torch.optim.Adam, [{}, {}], 3)
    assert single.optimizer.state[single.parameters[0]]["step"].dtype == torch.float32
    assert_near(single.adapted(single.take()), double.adapted(double.take()), rtol=1e-12, atol=0)


def test_foreach_and_fused_optimizers_are_differentiated_by_the_plain_step():
    for switch in ("foreach", "fused"):
        plain, fast = Last(torch.optim.Adam, [{}, {}], 3), Last(torch.optim.Adam, [{switch: True}] * 2, 3)
        assert_near(fast.adapted(fast.take()), plain.adapted(plain.take()), rtol=1e-9, atol=0)


def test_a_class_of_ones_own_registers_in_one_line():
    class Cubed(torch.optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr, "differentiable": False})

        def step(self, closure=None):  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    with torch.set_grad_enabled(group["differentiable"]):
                        p.sub_(group["lr"] * p.grad**3)

    register(Cubed, autodiff)
    last = Last(Cubed, [{}, {"lr": 2.0}], 2)
    before = last.take()
    truth = [3 * lr * g**2 * x for lr, g, x in zip([0.1, 2.0], last.gradients, last.vectors, strict=True)]
    assert_near(last.adapted(before), truth, rtol=1e-13, atol=0)
    assert full_name(Cubed).endswith("Cubed")
