"""No method leaves a trace, however it ends: parameters, buffers, gradients, optimizer state and random state."""

import copy

import pytest
import torch
from torch import nn

from sama.adaptation import adapt
from sama.hypergradient import METHODS, DifferentiableUpdate, knobs_of, method
from sama.hypergradient.evaluation import RandomState
from sama.hypergradient.result import Evaluated
from sama.programs.reweight import LabelledBatch, Reweight

CASES = {
    "sama": ("sama", {"alpha": 0.1}),
    "sama one-sided": ("sama", {"alpha": 0.1, "difference": "one_sided"}),
    "sama forward-mode": ("sama", {"alpha": 0.1, "difference": "exact"}),
    "sama displaced": ("sama", {"alpha": 0.1, "displace": True}),
    "sama_na": ("sama_na", {"alpha": 0.1}),
    "darts": ("darts", {}),
    "neumann": ("neumann", {"iterations": 2}),
    "cg": ("cg", {"iterations": 2, "regularization": 1.0}),
    "itd": ("itd", {"inner_steps": 2}),
    "exact": ("exact", {"regularization": 10.0}),
}


class Noisy(nn.Module):
    """A small net with BatchNorm, dropout and a switch that makes a chosen forward raise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3))
        self.calls, self.raise_at, self.outputs = 0, -1, []

    def forward(self, inputs):
        self.calls += 1
        if self.calls == self.raise_at:
            raise RuntimeError("planted")
        logits = self.layers(inputs)
        self.outputs.append(logits.detach().clone())
        return logits


class AnyProgram:
    """The same problem without the form of a weighting program."""

    def __init__(self, program: Reweight) -> None:
        self.base_loss, self.meta_loss, self.buffers = program.base_loss, program.meta_loss, program.buffers


class Scene:
    """A program whose base optimizer has taken two steps."""

    def __init__(self, *, weighting: bool = True) -> None:
        torch.manual_seed(0)
        self.model = Noisy()
        self.network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(), nn.Flatten(0))
        reweight = Reweight(self.model, self.network, features=("loss",), teacher=None, normalize=True)
        self.reweight, self.program = reweight, reweight if weighting else AnyProgram(reweight)
        self.batch = LabelledBatch(torch.randn(12, 4), torch.randint(0, 3, (12,)), torch.arange(12))
        self.meta_batch = LabelledBatch(torch.randn(12, 4), torch.randint(0, 3, (12,)), torch.arange(12))
        self.theta, self.lam = dict(self.model.named_parameters()), dict(self.network.named_parameters())
        self.optimizer = torch.optim.AdamW(self.theta.values(), lr=0.01)
        for _ in range(2):
            loss = self.program.base_loss(self.theta, self.lam, self.batch)
            for p, g in zip(self.theta.values(), torch.autograd.grad(loss, list(self.theta.values())), strict=True):
                p.grad = g
            self.optimizer.step()
        self.model.calls, self.model.outputs = 0, []

    def call(self, case: str, meta_batch=None, **context):
        name, knobs = CASES[case]
        last = {n: p.grad for n, p in self.theta.items() if p.grad is not None}
        return method(name, **{**knobs, **{k: context.pop(k) for k in knobs_of(name) if k in context}})(
            self.program,
            self.theta,
            self.lam,
            self.batch,
            meta_batch or self.meta_batch,
            adapt=lambda x: adapt(self.optimizer, self.theta, last, x),
            update=DifferentiableUpdate(self.optimizer, self.theta),
            **context,
        )

    def state(self):
        tensors = [*self.model.state_dict().values(), *self.network.state_dict().values(), torch.get_rng_state()]
        tensors += [p.grad for p in self.theta.values()]
        tensors += [value for p in self.theta.values() for value in self.optimizer.state[p].values()]
        return [tensor.clone() for tensor in tensors]

    def versions(self):
        """How often each parameter was written to, and whether it has a gradient."""
        return [(p._version, p.grad is None) for p in [*self.theta.values(), *self.lam.values()]]


def test_every_method_is_here():
    assert {name for name, _ in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("weighting", [True, False], ids=["weighting", "any"])
@pytest.mark.parametrize("raise_at", [-1, 1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_leaves_no_trace_even_when_a_forward_raises(case, raise_at, weighting):
    scene = Scene(weighting=weighting)
    scene.model.raise_at = raise_at
    before, versions, groups = scene.state(), scene.versions(), copy.deepcopy(scene.optimizer.param_groups)
    if raise_at > 0:
        try:
            scene.call(case)
        except RuntimeError as error:
            assert str(error) == "planted"
        else:
            assert scene.model.calls < raise_at  # the method needs fewer forwards
            assert raise_at > 2
    else:
        found = scene.call(case)
        assert all(value.isfinite().all() and value.abs().sum() > 0 for value in found.gradient.values())
        assert not any(value.requires_grad for value in found.gradient.values())
    for old, new in zip(before, scene.state(), strict=True):
        assert torch.equal(old, new)
    assert versions == scene.versions()
    assert str(groups) == str(scene.optimizer.param_groups)


@pytest.mark.parametrize("case", CASES)
def test_the_same_call_gives_the_same_bits(case):
    scene = Scene()
    first, second = scene.call(case), scene.call(case)
    assert all(torch.equal(first.gradient[n], second.gradient[n]) for n in first.gradient)


@pytest.mark.parametrize("weighting", [True, False], ids=["weighting", "any"])
@pytest.mark.parametrize("case", ["sama", "sama one-sided", "sama_na", "darts"])
def test_evaluations_draw_the_same_masks_and_the_perturbed_ones_differ(case, weighting):
    scene = Scene(weighting=weighting)
    scene.call(case, meta_batch=scene.batch, alpha=1e-4)
    at_theta, *perturbed = scene.model.outputs[0], *scene.model.outputs[-2:]
    for one, other in [(perturbed[0], perturbed[1]), (perturbed[0], at_theta), (perturbed[1], at_theta)]:
        if case == "sama one-sided" and one is perturbed[0] and other is at_theta:
            assert torch.equal(one, other)  # the evaluation at θ
            continue
        assert not torch.equal(one, other)
        # other masks would move the logits by their own size; the perturbation moves them by a thousandth of it
        assert (one - other).norm() < 1e-2 * at_theta.norm()


@pytest.mark.parametrize("case", ["sama forward-mode", "darts", "neumann", "cg", "itd", "exact"])
def test_the_base_loss_draws_the_first_random_numbers(case):
    """Those that followed when the method was called, whatever the meta loss drew before: the same for all methods."""
    scene = Scene()
    draws = RandomState()
    with torch.no_grad():
        scene.reweight.example_losses(scene.theta, scene.batch)
    draws.restore()
    expected, scene.model.outputs = scene.model.outputs[-1], []
    scene.call(case)
    assert any(torch.allclose(expected, found, atol=1e-6) for found in scene.model.outputs)


def test_darts_draws_the_same_masks_one_step_ahead():
    scene = Scene()
    scene.call("darts", meta_batch=scene.batch, learning_rate=1e-4)
    at_theta, ahead = scene.model.outputs[:2]
    assert 0 < (ahead - at_theta).norm() < 1e-2 * at_theta.norm()


@pytest.mark.parametrize("weighting", [True, False], ids=["weighting", "any"])
def test_one_sided_draws_the_masks_of_the_base_step(weighting):
    """However the random state has moved on since."""
    scene = Scene(weighting=weighting)
    draws = RandomState()
    if weighting:
        with torch.no_grad():
            losses, features = scene.reweight.example_losses(scene.theta, scene.batch)
        evaluated = Evaluated(draws, losses=losses, features=features)
    else:
        loss = scene.program.base_loss(scene.theta, scene.lam, scene.batch)
        of_meta = torch.autograd.grad(loss, list(scene.lam.values()))
        evaluated = Evaluated(draws, of_meta=dict(zip(scene.lam, of_meta, strict=True)))
    at_theta = scene.model.outputs[-1]
    torch.rand(5)
    scene.call("sama one-sided", alpha=1e-4, evaluated=evaluated)
    assert scene.model.calls == 3  # the base step's, the meta loss, one perturbed
    assert 0 < (scene.model.outputs[-1] - at_theta).norm() < 1e-2 * at_theta.norm()


@pytest.mark.parametrize("case", ["sama forward-mode", "neumann", "cg", "itd", "exact"])
def test_attention_with_a_fused_kernel_is_served(case):
    """The kernels of plain training have no second derivative; these methods choose the one that has."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.out = nn.Linear(4, 24), nn.Linear(8, 3)

        def forward(self, inputs):
            q, k, v = self.project(inputs).reshape(len(inputs), 1, 1, 24).expand(-1, 2, 5, -1).chunk(3, dim=-1)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v).mean((1, 2)))

    torch.manual_seed(0)
    model, network = (
        Attention(),
        nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(), nn.Flatten(0)),
    )
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    batch = LabelledBatch(torch.randn(6, 4), torch.randint(0, 3, (6,)), torch.arange(6))
    theta, lam = dict(model.named_parameters()), dict(network.named_parameters())
    optimizer = torch.optim.SGD(theta.values(), lr=0.1)
    name, knobs = CASES[case]
    found = method(name, **knobs)(
        program, theta, lam, batch, batch, adapt=lambda x: x, update=DifferentiableUpdate(optimizer, theta)
    )
    assert all(value.isfinite().all() for value in found.gradient.values())


def test_an_operator_without_forward_mode_is_named():
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, *grad_outputs):
            return 2 * grad_outputs[0]

    scene = Scene()
    plain = scene.reweight.example_losses
    scene.reweight.example_losses = lambda base, batch: (Opaque.apply(plain(base, batch)[0]), plain(base, batch)[1])
    with pytest.raises(ValueError, match="difference='exact' needs a forward-mode derivative of every operator"):
        scene.call("sama forward-mode")
