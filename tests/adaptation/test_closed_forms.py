"""Closed forms against autodiff through torch's own step, against differences of real steps, and their limits."""

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sama.adaptation import RULES, adapt
from tests.adaptation.cases import OPTIONS, TABLE, Last, assert_near

ENTRIES = [pytest.param(entry, id=f"{name}-{k}") for name, entries in TABLE.items() for k, entry in enumerate(entries)]
EXAMPLES = {1: 12, 2: 12, 10: 12, 1000: 2}


def kinds(mapping):
    return pytest.mark.parametrize("kind", list(mapping), ids=lambda kind: kind.__name__)


@pytest.fixture
def smooth_muon(monkeypatch):
    """Muon's iteration in float64: its bfloat16 has no derivative that differences could find."""
    import timm.optim.muon as module

    monkeypatch.setattr(torch, "bfloat16", torch.float64)
    orthogonalise = functools.partial(module.zeropower_via_newtonschulz, dtype=torch.float64)
    monkeypatch.setattr(module, "zeropower_via_newtonschulz", orthogonalise)


def test_every_registered_optimizer_is_in_the_table():
    assert set(TABLE) == set(RULES)


@pytest.mark.filterwarnings("ignore:the step of")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_registered_optimizer_meets_differences_of_its_own_step(entry, steps, smooth_muon):
    last = Last(entry.kind, entry.options, steps, shapes=entry.shapes)
    truth = last.by_differences()
    before = last.take()
    assert_near(last.adapted(before), truth, rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("steps", EXAMPLES)
@kinds(OPTIONS)
def test_closed_form_equals_autodiff(kind, steps):
    @settings(max_examples=EXAMPLES[steps], deadline=None)
    @given(options=st.tuples(OPTIONS[kind], OPTIONS[kind]), seed=st.integers(0, 2**31 - 1))
    def holds(options, seed):
        last = Last(kind, list(options), steps, seed)
        # torch detaches SGD's first momentum buffer; its update is linear, so a difference is exact at any size
        fresh = kind is torch.optim.SGD and steps == 1
        truth = last.by_differences(h=1.0) if fresh else last.by_autodiff()
        before = last.take()
        assert_near(last.adapted(before), truth, rtol=1e-10, atol=1e-12 if steps == 1 else 1e-14)

    holds()


def unseen(gradient):
    """A gradient whose first coordinate was never anything but 0."""
    gradient.view(-1)[0] = 0.0
    return gradient


def nadam_limit(t, beta1=0.9, decay=4e-3):
    mu = [beta1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in range(1, t + 2)]
    product = math.prod(mu[:t])
    return (1 - mu[t - 1]) / (1 - product) + mu[t] * (1 - beta1) / (1 - product * mu[t])


def radam_limit(t, beta1=0.9, beta2=0.8):
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    slope = (1 - beta1) / (1 - beta1**t)
    if length <= 5:
        return 0.01 * slope
    r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return r * math.sqrt(1 - beta2**t) * slope


LIMITS = {
    torch.optim.Adam: lambda t: 0.1 / (1 - 0.9**t),
    torch.optim.AdamW: lambda t: 0.1 / (1 - 0.9**t),
    torch.optim.NAdam: nadam_limit,
    torch.optim.RAdam: radam_limit,
    torch.optim.Adamax: lambda t: 0.1 / (1 - 0.9**t),
    torch.optim.Adagrad: lambda t: 1.0,
    torch.optim.Adadelta: lambda t: 0.01,
    torch.optim.RMSprop: lambda t: 1.0,
}
"""`ϵ·D/lr` at a coordinate that never saw a gradient, after t steps with ϵ = 0.01 and torch's other defaults."""


def test_every_closed_form_with_a_second_moment_has_its_limit_here():
    assert {torch.optim.SGD, *LIMITS} == set(OPTIONS)


@pytest.mark.parametrize("steps", [1, 9])
@kinds(LIMITS)
def test_without_evidence_d_is_zero_and_the_exact_form_is_the_limit(kind, steps):
    options: dict[str, Any] = {"lr": 0.3, "eps": 1e-2}
    if kind is torch.optim.RAdam:
        options["betas"] = (0.9, 0.8)  # trusts the second moment from the 8th step on
    last = Last(kind, [options, dict(options)], steps, edit=unseen)
    for parameter in last.parameters:
        parameter.data.view(-1)[0] = 0.0  # what is added to 0 is not rounded
    limit = last.by_differences(h=1e-9)
    before = last.take()
    found, exact = last.adapted(before), last.adapted(before, exact=True)
    linear = kind is torch.optim.RAdam and steps == 1  # nothing is divided yet: no rule is needed
    for rule, value, truth, x in zip(found, exact, limit, last.vectors, strict=True):
        assert value.view(-1)[0].item() == pytest.approx(
            LIMITS[kind](steps) * 0.3 / 1e-2 * x.view(-1)[0].item(), rel=1e-12
        )
        torch.testing.assert_close(value.view(-1)[0], truth.view(-1)[0], rtol=1e-5, atol=0)
        assert linear or rule.view(-1)[0] == 0
        assert torch.equal(rule.view(-1)[1:], value.view(-1)[1:])
        assert value.isfinite().all()


def test_a_gradient_that_vanishes_now_but_was_seen_keeps_its_derivative():
    last = Last(torch.optim.Adam, [{}, {}], 5)
    last.gradients[0].view(-1)[0] = 0.0
    truth = last.by_autodiff()
    found = last.adapted(last.take())
    assert_near(found, truth, rtol=1e-10, atol=1e-14)
    assert found[0].view(-1)[0] != 0


@pytest.mark.parametrize("steps", [5, 6])
def test_radam_on_both_sides_of_its_threshold(steps):
    """With torch's betas ρ is 4.996 after 5 steps and 5.994 after 6: the second moment is trusted above 5."""
    last = Last(torch.optim.RAdam, [{}, {}], steps)
    truth = last.by_autodiff()
    assert_near(last.adapted(last.take()), truth, rtol=1e-10, atol=1e-14)


def test_a_centered_second_moment_without_spread_gives_zero():
    """The mean square equals the square of the mean: there is nothing to divide by."""
    last = Last(torch.optim.RMSprop, [{"centered": True}, {"centered": True}], 3)
    before = last.take()
    state = last.optimizer.state[last.parameters[0]]
    state["square_avg"].copy_(state["grad_avg"].square())
    assert not last.adapted(before)[0].any()


def test_first_step_of_adam_is_nearly_blind_to_its_gradient():
    last = Last(torch.optim.Adam, [{"lr": 0.1}, {"lr": 0.1}], 1)
    found = last.adapted(last.take())
    exact = [0.1 * 1e-8 / (g.abs() + 1e-8) ** 2 * x for g, x in zip(last.gradients, last.vectors, strict=True)]
    assert_near(found, exact, rtol=0, atol=0.1 * 1e-12)


def test_half_precision_is_adapted_in_float32():
    """(√ŝ+ϵ)² of a gradient of 1e-4 is no number of float16."""
    torch.set_default_dtype(torch.float32)
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float16))
    double = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    gradient = torch.tensor([1e-3, -2e-3, 3e-3], dtype=torch.float16)

    found = []
    for p in (parameter, double):
        optimizer = torch.optim.Adam([p], lr=0.1, eps=1e-4, betas=(0.5, 0.9))
        for factor in (1.0, 0.5):
            p.grad = (factor * gradient).to(p.dtype)
            optimizer.step()
        assert p.grad is not None
        found.append(adapt(optimizer, {"p": p}, {"p": p.grad}, {"p": torch.ones_like(p)})["p"])
    assert found[0].dtype == torch.float16
    torch.testing.assert_close(found[0].double(), found[1], rtol=0.05, atol=0)


@pytest.mark.filterwarnings("ignore:the step of")
@pytest.mark.parametrize("entry", ENTRIES)
def test_numbers_that_stay_on_an_accelerator_give_the_same(entry, monkeypatch):
    """With `capturable` or `fused`, counters and learning rates are tensors there; reading them would synchronise."""
    last = Last(entry.kind, entry.options, 9, shapes=entry.shapes)
    before = last.take()
    truth = last.adapted(before)
    for module in ("step", "nadam", "lamb", "lars"):
        kept = lambda value: value.detach().squeeze() if isinstance(value, torch.Tensor) else value  # noqa: E731
        monkeypatch.setattr(f"sama.adaptation.{module}.scalar", kept)
    for group in last.optimizer.param_groups:
        group["lr"] = torch.tensor([group["lr"]])
    assert_near(last.adapted(before), truth, rtol=1e-12, atol=1e-18)
