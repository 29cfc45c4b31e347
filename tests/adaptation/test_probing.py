"""Probing: right where the update acts coordinate by coordinate, an error where it does not."""

import pytest
import timm.optim
import torch

from sama.adaptation import Memory, adapt, probing, remember
from sama.adaptation.replica import replicate
from tests.adaptation.cases import OPTIONS, Last, assert_near


def probed(last: Last) -> list:
    before = replicate(last.optimizer)
    return probing(before, last.gradients, last.vectors)


@pytest.mark.parametrize("kind", list(OPTIONS), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("steps", [2, 12])
def test_probing_agrees_with_closed_forms(kind, steps):
    for seed in range(3):
        last = Last(kind, [{"weight_decay": 0.2}, {"maximize": True}], steps, seed)
        found = probed(last)
        assert_near(found, last.adapted(last.take()), rtol=1e-6, atol=1e-9)


ELEMENTWISE = ["AdaBelief", "Adan", "Adopt", "LaProp", "MADGRAD", "NAdamW", "RMSpropTF", "SGDW"]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_optimizers_of_timm_are_probed(name):
    last = Last(getattr(timm.optim, name), [{}, {"lr": 0.3}], 4)
    truth = last.by_differences()
    assert_near(last.adapted(last.take()), truth, rtol=1e-6, atol=1e-9)


MIXED = ["Lamb", "Lars", "Muon", "Adafactor", "NvNovoGrad"]


@pytest.mark.parametrize("name", MIXED)
def test_probing_refuses_updates_that_mix_coordinates(name):
    options = [{"weight_decay": 0.1}] * 2
    last = Last(getattr(timm.optim, name), options, 3, shapes=[(5, 4), (6, 4)])
    with pytest.raises(ValueError, match=rf"no adaptation serves the optimizer {name}: its update mixes coordinates"):
        probed(last)


def test_a_coupling_between_parameters_is_found():
    """Clipping by the norm of all gradients couples even tensors of one coordinate."""
    last = Last(timm.optim.Lamb, [{"weight_decay": 0.0}] * 2, 3, shapes=[(), (1,)], edit=lambda g: 5 * g)
    with pytest.raises(ValueError, match="mixes coordinates"):
        probed(last)


@pytest.mark.filterwarnings("ignore:the step of")
@pytest.mark.parametrize("name", ["Lion", "Rprop"])
def test_sign_updates_have_no_derivative(name):
    kind = getattr(timm.optim, name, None) or getattr(torch.optim, name)
    for seed in range(5):
        last = Last(kind, [{}, {"lr": 0.25}], 4, seed)
        last.gradients[0].view(-1)[0] = 1e-12  # the sign may change within the step of the difference
        last.gradients[1].view(-1)[0] = 0.0
        assert not any(f.any() for f in probed(last))


def test_sign_updates_say_that_v_is_zero():
    last = Last(timm.optim.Lion, [{}, {}], 3)
    with pytest.warns(UserWarning, match=r"step of Lion does not change .* D = 0 and v = 0: .* sama_na goes without D"):
        probed(last)


def test_a_coordinate_without_evidence_gets_zero():
    def first_unseen(gradient):
        gradient.view(-1)[0] = 0.0
        return gradient

    last = Last(timm.optim.NAdamW, [{}, {}], 4, edit=first_unseen)
    for found in probed(last):
        assert found.view(-1)[0] == 0
        assert found.view(-1)[1:].all()


def test_a_gradient_that_is_zero_now_but_was_seen_keeps_its_derivative():
    last = Last(torch.optim.Adam, [{}, {}], 5)
    last.gradients[0].zero_()
    found = probed(last)
    assert found[0].all()
    assert_near(found, last.adapted(last.take()), rtol=1e-6, atol=1e-9)


class Noisy(torch.optim.Optimizer):
    """Langevin dynamics: draws from the global random state; keeps an attribute that torch does not copy."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.temperature = 0.5
        self.steps = 0

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad + self.temperature * torch.randn_like(p), alpha=-group["lr"])


def test_random_updates_are_probed_with_the_same_draws_and_the_random_state_stays():
    last = Last(Noisy, [{}, {"lr": 2.0}], 2)
    before = last.take()
    state = torch.get_rng_state()
    found = last.adapted(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert_near(found, [lr * x for lr, x in zip([0.1, 2.0], last.vectors, strict=True)], rtol=1e-9, atol=1e-9)
    assert isinstance(last.optimizer, Noisy)
    assert last.optimizer.steps == 2


def test_a_scheduler_on_the_optimizer_does_not_step_the_real_one():
    """A scheduler leaves a wrapper on the object that steps the optimizer that it was made for."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = timm.optim.SGDW([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    hooked = []
    optimizer.register_step_post_hook(lambda *_: hooked.append(1))
    parameter.grad = torch.ones(3)
    before = remember(optimizer)
    optimizer.step()
    value = parameter.detach().clone()
    found = adapt(optimizer, {"p": parameter}, {"p": parameter.grad}, {"p": torch.ones(3)}, before=before)
    assert torch.equal(parameter, value)
    assert hooked == [1]
    assert "step" in vars(optimizer)
    assert "step" not in vars(replicate(optimizer))
    torch.testing.assert_close(found["p"], torch.full((3,), 0.1))
    scheduler.step()


def test_optimizers_of_which_a_copy_is_no_use_are_errors_that_say_why():
    parameter = torch.nn.Parameter(torch.ones(3))

    def attempt(optimizer):
        parameter.grad = torch.ones(3)
        before = Memory(frozenset(), replica=replicate(optimizer))
        adapt(optimizer, {"p": parameter}, {"p": parameter.grad}, {"p": torch.ones(3)}, before=before)

    with pytest.raises(ValueError, match=r"serves the optimizer LBFGS: a copy of it cannot be stepped .*sama_na"):
        attempt(torch.optim.LBFGS([parameter]))
    with pytest.raises(ValueError, match=r"serves the optimizer SparseAdam: a copy of it cannot be stepped"):
        attempt(torch.optim.SparseAdam([parameter]))
    with pytest.raises(ValueError, match=r"RAdamLegacy: it steps a copy in float64 with the precision of float32"):
        attempt(timm.optim.RAdamLegacy([parameter]))
    optimizer = Noisy([parameter])
    optimizer.handle = (line for line in [])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"serves the optimizer Noisy: a copy of it cannot be copied .*register its"):
        attempt(optimizer)
