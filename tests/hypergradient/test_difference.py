"""How the error of SAMA's three differences depends on ε, and that the one-sided one reuses the base step."""

import numpy as np
import pytest
import torch

from sama.hypergradient import Evaluated, method
from sama.hypergradient.evaluation import RandomState
from tests.oracles import LinearModel, WeightDecay, WeightedLogistic, flat, relative_error, sama_by_autodiff

CURVED = {
    "weighted": lambda: WeightedLogistic(3),
    "weighted, direct term": lambda: WeightedLogistic(3, features=3, classes=4, examples=9, direct=0.7),
    "given features": lambda: LinearModel("logistic", "network", 3),
    "weights": lambda: LinearModel("logistic", "weights", 3),
}


def sama(problem, theta=None, name="sama", evaluated=None, **options):
    generator = torch.Generator().manual_seed(11)
    theta = problem.theta if theta is None else theta
    weights = {n: 0.1 + torch.rand(p.shape, generator=generator, dtype=p.dtype) for n, p in theta.items()}
    found = method(name, **options)(
        problem,
        theta,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        evaluated=evaluated,
        adapt=lambda x: {n: weights[n] * x[n] for n in x},
    )
    return found, sama_by_autodiff(problem, theta, problem.lam, weights)


@pytest.mark.parametrize(
    ("difference", "order", "best"), [("central", 2.0, 1e-6), ("one_sided", 1.0, 1e-6), ("exact", 0.0, 1e-10)]
)
@pytest.mark.parametrize("name", CURVED)
def test_order_in_epsilon(name, difference, order, best):
    problem = CURVED[name]()

    def error(alpha):
        found, truth = sama(problem, alpha=alpha, difference=difference)
        return relative_error(found.gradient, truth)

    alphas = np.geomspace(3e-3, 3e-2, 6)
    if difference == "exact":
        assert max(error(alpha) for alpha in alphas) <= best  # ε does not enter
        return
    slope = np.polyfit(np.log(alphas), np.log([error(alpha) for alpha in alphas]), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)
    assert min(error(10.0**-k) for k in range(2, 9)) <= best


@pytest.mark.parametrize("name", ["sama", "sama_na", "darts"])
@pytest.mark.parametrize("problem", [WeightedLogistic(5, direct=0.4), WeightDecay(5)], ids=["weighted", "any"])
def test_one_sided_reuses_what_the_base_step_computed(problem, name, monkeypatch):
    """The same numbers with and without the base step's evaluation, and one evaluation fewer."""
    calls = []
    evaluation = "example_losses" if isinstance(problem, WeightedLogistic) else "base_loss"
    original = getattr(problem, evaluation)
    if isinstance(problem, WeightedLogistic):
        losses, features = problem.example_losses(problem.theta, problem.batch)
        evaluated = Evaluated(RandomState(), losses=losses, features=features)
    else:
        lam = {n: p.clone().requires_grad_() for n, p in problem.lam.items()}
        value = problem.base_loss(problem.theta, lam, problem.batch)
        of_meta = dict(zip(lam, torch.autograd.grad(value, list(lam.values())), strict=True))
        evaluated = Evaluated(RandomState(), of_meta=of_meta)

    def counted(*arguments):
        calls.append(arguments[-1] is problem.batch)
        return original(*arguments)

    monkeypatch.setattr(problem, evaluation, counted)
    anew, _ = sama(problem, name=name, alpha=0.01, difference="one_sided")
    count_anew, calls[:] = sum(calls), []
    reused, _ = sama(problem, name=name, alpha=0.01, difference="one_sided", evaluated=evaluated)
    virtual = int(name == "darts")
    assert (count_anew, sum(calls)) == (2 + virtual, 1 + virtual)
    for name in problem.lam:
        assert torch.equal(anew.gradient[name], reused.gradient[name])


@pytest.mark.parametrize("difference", ["central", "one_sided", "exact"])
def test_zero_direction_leaves_the_direct_gradient(difference):
    problem = WeightedLogistic(5, direct=0.7)
    found = method("sama", alpha=0.1, difference=difference)(
        problem,
        problem.theta,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        adapt=lambda x: {n: torch.zeros_like(p) for n, p in x.items()},
    )
    for name, value in problem.lam.items():
        torch.testing.assert_close(found.gradient[name], 2 * 0.7 * value)


def test_a_one_sided_difference_holds_the_features_at_theta():
    """To first order in ε it makes no difference; at a large ε it does."""
    problem = WeightedLogistic(5)
    found, _ = sama(problem, name="sama_na", alpha=0.5, difference="one_sided")
    v = torch.func.grad(problem.meta_loss)(problem.theta, problem.lam, problem.meta_batch)
    epsilon = 0.5 / flat(v).norm()
    losses, features = problem.example_losses(problem.theta, problem.batch)
    ahead, _ = problem.example_losses({n: problem.theta[n] + epsilon * v[n] for n in v}, problem.batch)
    truth = torch.func.grad(lambda lam: (problem.weights(lam, features) * (losses - ahead) / epsilon).mean())(
        problem.lam
    )
    assert relative_error(found.gradient, truth) <= 1e-10


@pytest.mark.parametrize("name", ["sama", "sama_na"])
def test_the_displacement_is_minus_epsilon_v(name):
    problem = LinearModel("squares", "network", 0)
    found, _ = sama(problem, name=name, alpha=0.25, displace=True)
    assert found.displacement is not None
    assert found.epsilon is not None
    of_base = problem.meta_gradient(problem.theta)
    generator = torch.Generator().manual_seed(11)
    weights = torch.cat([0.1 + torch.rand(p.shape, generator=generator, dtype=p.dtype) for p in problem.theta.values()])
    v = weights * of_base if name == "sama" else of_base
    torch.testing.assert_close(found.epsilon, 0.25 / v.norm())
    torch.testing.assert_close(torch.cat(list(found.displacement.values())), -0.25 * v / v.norm())
    assert sama(problem, name=name, alpha=0.25)[0].displacement is None
