"""SAMA against its own definition by autodiff where the features of the weights move with θ, in float64."""

import pytest
import torch

from tests.hypergradient.small_problems import PROBLEMS, diagonal_of, hypergradient
from tests.oracles import relative_error, sama_by_autodiff


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
