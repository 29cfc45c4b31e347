"""SAMA against its own definition by autodiff where the features of the weights move with θ, in float64; its steps."""

import pytest
import torch

from sama.adaptation import adapt
from sama.hypergradient import method
from tests.hypergradient.small_problems import PROBLEMS, diagonal_of, hypergradient
from tests.oracles import flat, relative_error, sama_by_autodiff


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PROBLEMS)
def test_meets_its_definition(name, seed):
    problem = PROBLEMS[name](seed)
    diagonal = diagonal_of(problem, seed)
    truth = sama_by_autodiff(problem, problem.theta, problem.lam, diagonal)
    errors = [relative_error(hypergradient("sama", problem, 10.0**-k, diagonal).gradient, truth) for k in range(1, 8)]
    assert min(errors) <= 1e-8


def test_without_adaptation_ignores_the_optimizer():
    problem = PROBLEMS["weighted"](4)
    ones = {n: torch.ones_like(p) for n, p in problem.theta.items()}
    truth = sama_by_autodiff(problem, problem.theta, problem.lam, ones)
    found = hypergradient("sama_na", problem, 1e-4, diagonal_of(problem, 4)).gradient
    assert relative_error(found, truth) <= 1e-7
    assert relative_error(hypergradient("sama", problem, 1e-4, diagonal_of(problem, 4)).gradient, truth) > 0.1


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


def test_the_direct_term_survives_an_adaptation_in_place(monkeypatch):
    monkeypatch.setattr("sama.adaptation.SMALL", 3)  # θ counts as large

    class Shifted:
        """Losses of θ + λ, for whose two terms autograd has one gradient; no ∂L_base/∂λ."""

        def base_loss(self, base, meta, batch):
            return base["w"].square().sum() + 0.0 * meta["w"].sum()

        def meta_loss(self, base, meta, batch):
            return (base["w"] + meta["w"] - batch).square().sum()

        def buffers(self):
            return []

    generator = torch.Generator().manual_seed(0)
    theta, gradient, lam, target = torch.randn(4, 40, generator=generator, dtype=torch.float64)
    theta = torch.nn.Parameter(theta)
    optimizer = torch.optim.Adam([theta], lr=0.1)
    theta.grad = gradient
    optimizer.step()

    def of_optimizer(x):
        return adapt(optimizer, {"w": theta}, {"w": gradient}, x, consume=True)

    found = method("sama")(Shifted(), {"w": theta}, {"w": lam}, target, target, adapt=of_optimizer, alpha=0.1).gradient[
        "w"
    ]
    torch.testing.assert_close(found, 2 * (theta.detach() + lam - target))
