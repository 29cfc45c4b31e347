"""Where SAMA evaluates the perturbed losses, and with which draws; that it leaves no trace."""

import pytest
import torch
from torch import nn

from sama.hypergradient import METHODS
from sama.programs.reweight import LabelledBatch, Reweight
from tests.hypergradient.small_problems import PROBLEMS, diagonal_of, hypergradient
from tests.oracles import flat


class Noisy(nn.Module):
    """A small net with BatchNorm, dropout and a switch that makes a chosen forward raise."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))
        self.calls, self.raise_at, self.outputs = 0, -1, []

    def forward(self, inputs):
        self.calls += 1
        if self.calls == self.raise_at:
            raise RuntimeError("planted")
        logits = self.layers(inputs)
        self.outputs.append(logits.detach().clone())
        return logits


@pytest.fixture
def noisy():
    torch.manual_seed(0)
    model, network = Noisy(), nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    batch = LabelledBatch(torch.randn(12, 4), torch.randint(0, 3, (12,)), torch.arange(12))
    meta_batch = LabelledBatch(torch.randn(12, 4), torch.randint(0, 3, (12,)), torch.arange(12))
    return program, batch, meta_batch


def call(program, batch, meta_batch, alpha=0.1):
    return METHODS["sama"](
        program,
        dict(program.model.named_parameters()),
        dict(program.network.named_parameters()),
        batch,
        meta_batch,
        adapt=lambda x: x,
        alpha=alpha,
    )


def state_of(program):
    tensors = [*program.model.state_dict().values(), *program.network.state_dict().values(), torch.get_rng_state()]
    return [tensor.clone() for tensor in tensors]


@pytest.mark.parametrize("raise_at", [-1, 1, 2, 3])
def test_leaves_no_trace_even_when_a_forward_raises(noisy, raise_at):
    program, batch, meta_batch = noisy
    program.model.raise_at = raise_at
    before = state_of(program)
    if raise_at > 0:
        with pytest.raises(RuntimeError, match="planted"):
            call(program, batch, meta_batch)
    else:
        call(program, batch, meta_batch)
    for old, new in zip(before, state_of(program), strict=True):
        assert torch.equal(old, new)
    assert all(p.grad is None for p in [*program.model.parameters(), *program.network.parameters()])


def test_both_signs_draw_the_same_masks_and_differ_from_the_unperturbed(noisy):
    program, batch, _ = noisy
    call(program, batch, batch, alpha=1e-4)
    at_theta, plus, minus = program.model.outputs  # the same batch and masks in all three
    assert not torch.equal(plus, minus)
    assert not torch.equal(plus, at_theta)
    # other masks would move the logits by their own size; the perturbation moves them by a thousandth of it
    assert (plus - minus).norm() < 1e-2 * at_theta.norm()
    torch.testing.assert_close(0.5 * (plus + minus), at_theta, rtol=1e-3, atol=1e-3)


def test_a_program_without_weights_draws_the_same_masks_for_both_signs(noisy):
    program, batch, _ = noisy

    class General:  # the same two losses, without the weighting form
        buffers, base_loss, meta_loss = program.buffers, program.base_loss, program.meta_loss
        model, network = program.model, program.network

    call(General(), batch, batch, alpha=1e-4)
    at_theta, plus, minus = program.model.outputs
    assert not torch.equal(plus, minus)
    assert (plus - minus).norm() < 1e-2 * at_theta.norm()


@pytest.mark.parametrize("name", PROBLEMS)
def test_both_signs_lie_at_distance_alpha_from_theta(name):
    problem = PROBLEMS[name](6)
    diagonal = diagonal_of(problem, 6)
    seen = []
    evaluated = "example_losses" if name.startswith("weighted") else "base_loss"
    evaluate = getattr(problem, evaluated)

    def recorded(base, *arguments):
        seen.append({key: value.detach().clone() for key, value in base.items()})
        return evaluate(base, *arguments)

    setattr(problem, evaluated, recorded)
    found = hypergradient("sama", problem, 0.25, diagonal)
    steps = [{key: base[key] - problem.theta[key] for key in base} for base in seen[-2:]]
    of_base = torch.func.grad(problem.meta_loss)(problem.theta, problem.lam, problem.meta_batch)
    v = flat({key: diagonal[key] * of_base[key] for key in of_base})
    assert found.epsilon is not None
    torch.testing.assert_close(found.epsilon, 0.25 / v.norm())
    torch.testing.assert_close(flat(steps[0]), found.epsilon * v)
    torch.testing.assert_close(flat(steps[1]), -found.epsilon * v)


def test_a_negative_alpha_is_refused():
    problem = PROBLEMS["weighted"](0)
    with pytest.raises(ValueError, match=r"expected alpha > 0, got -0\.1"):
        hypergradient("sama", problem, -0.1, diagonal_of(problem, 0))
