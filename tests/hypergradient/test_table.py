"""One table of every registered method against what it must equal, in float64: direction and magnitude."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad

from sama.hypergradient import METHODS, DifferentiableUpdate, method
from tests.oracles import LinearModel, agreement, flat, relative_error, sama_by_autodiff

SIZES = {"3": (3, 12), "10": (10, 40), "30": (30, 90)}  # base parameters, examples
PROBLEMS = [(loss, role) for loss in ("squares", "logistic") for role in ("weights", "decay", "bias", "network")]
RATE = 0.37


def solution(problem: LinearModel):
    return problem.solve(problem.lam)


def elsewhere(problem: LinearModel):
    return problem.theta


def truth(problem: LinearModel, theta):
    return problem.true_hypergradient()


def regularized(problem: LinearModel, theta):
    return problem.implicit(theta, problem.lam, lambda H, v: torch.linalg.solve(H + 0.7 * torch.eye(len(H)).to(H), v))


def three_terms(problem: LinearModel, theta):
    """p = η (1 + (I−ηH) + (I−ηH)² + (I−ηH)³) v with the matrix written out."""

    def solve(H: Tensor, v: Tensor) -> Tensor:
        keep = torch.eye(len(H)).to(H) - RATE * H
        return RATE * (v + keep @ v + keep @ keep @ v + keep @ keep @ keep @ v)

    return problem.implicit(theta, problem.lam, solve)


def krylov(problem: LinearModel, theta):
    """Two CG iterations: the solution within span{v, Av}, A = H + 0.7 I, that is best in A's own norm."""

    def solve(H: Tensor, v: Tensor) -> Tensor:
        A = H + 0.7 * torch.eye(len(H)).to(H)
        basis = torch.stack([v, A @ v], dim=1)
        return basis @ torch.linalg.solve(basis.T @ A @ basis, basis.T @ v)

    return problem.implicit(theta, problem.lam, solve)


def one_step_ahead(problem: LinearModel, theta):
    """DARTS's definition by autodiff: L_meta after one gradient step of size RATE."""

    def after(lam):
        g = grad(problem.base_loss)(theta, lam, problem.batch)
        return problem.meta_loss({n: theta[n] - RATE * g[n] for n in theta}, lam, problem.meta_batch)

    return grad(after)(problem.lam)


def heavy_ball(problem: LinearModel, theta):
    """Four steps of SGD with momentum 0.8, dampening 0.3 and weight decay 0.05, unrolled by hand."""

    def after(lam):
        point, buffer = theta, None
        for _ in range(4):
            g = grad(problem.base_loss)(point, lam, problem.batch)
            g = {n: g[n] + 0.05 * point[n] for n in g}
            buffer = g if buffer is None else {n: 0.8 * buffer[n] + 0.7 * g[n] for n in g}
            point = {n: point[n] - RATE * buffer[n] for n in g}
        return problem.meta_loss(point, lam, problem.meta_batch)

    return grad(after)(problem.lam)


def diagonal(problem: LinearModel):
    generator = torch.Generator().manual_seed(7)
    return {n: 0.1 + torch.rand(p.shape, generator=generator, dtype=p.dtype) for n, p in problem.theta.items()}


def no_inverse(problem: LinearModel, theta):
    return sama_by_autodiff(problem, theta, problem.lam, diagonal(problem))


def no_inverse_no_adaptation(problem: LinearModel, theta):
    return sama_by_autodiff(problem, theta, problem.lam, {n: torch.ones_like(p) for n, p in theta.items()})


def sgd(problem: LinearModel):
    parameters = {n: p.clone().requires_grad_() for n, p in problem.theta.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=RATE, momentum=0.8, dampening=0.3, weight_decay=0.05)
    return DifferentiableUpdate(optimizer, parameters)


@dataclass(frozen=True)
class Case:
    name: str
    knobs: dict[str, Any]
    point: Callable
    target: Callable
    tolerance: float = 1e-6


CASES = {
    "sama": Case("sama", {"alpha": 3e-4}, elsewhere, no_inverse),
    "sama one-sided": Case("sama", {"alpha": 1e-7, "difference": "one_sided"}, elsewhere, no_inverse),
    "sama forward-mode": Case("sama", {"alpha": 0.5, "difference": "exact"}, elsewhere, no_inverse, 1e-10),
    "sama_na": Case("sama_na", {"alpha": 3e-4}, elsewhere, no_inverse_no_adaptation),
    "sama_na one-sided": Case(
        "sama_na", {"alpha": 1e-7, "difference": "one_sided"}, elsewhere, no_inverse_no_adaptation
    ),
    "sama_na forward-mode": Case(
        "sama_na", {"alpha": 0.5, "difference": "exact"}, elsewhere, no_inverse_no_adaptation, 1e-10
    ),
    "darts": Case("darts", {"alpha": 3e-4, "learning_rate": RATE}, elsewhere, one_step_ahead),
    "darts one-sided": Case(
        "darts", {"alpha": 1e-7, "learning_rate": RATE, "difference": "one_sided"}, elsewhere, one_step_ahead
    ),
    "darts forward-mode": Case(
        "darts", {"learning_rate": RATE, "difference": "exact"}, elsewhere, one_step_ahead, 1e-10
    ),
    "neumann converged": Case("neumann", {"iterations": 600}, solution, truth),
    "neumann truncated": Case("neumann", {"iterations": 3, "learning_rate": RATE}, elsewhere, three_terms, 1e-10),
    "cg converged": Case("cg", {"iterations": 90, "tolerance": 1e-13}, solution, truth),
    "cg regularized": Case("cg", {"iterations": 90, "regularization": 0.7}, elsewhere, regularized),
    "cg truncated": Case("cg", {"iterations": 2, "regularization": 0.7}, elsewhere, krylov, 1e-9),
    "itd": Case("itd", {"inner_steps": 4}, elsewhere, heavy_ball, 1e-10),
    "exact": Case("exact", {"limit": 50}, solution, truth, 1e-9),
    "exact regularized": Case("exact", {"regularization": 0.7}, elsewhere, regularized, 1e-9),
}


def test_every_method_is_in_the_table():
    assert {case.name for case in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("loss", "role"), PROBLEMS)
@pytest.mark.parametrize("case", CASES)
def test_meets_its_target(case, loss, role, size):
    case, (features, examples) = CASES[case], SIZES[size]
    problem = LinearModel(loss, role, seed=features, features=features, examples=examples)
    theta, knobs = case.point(problem), dict(case.knobs)
    if case.target is truth and case.name == "neumann":  # just below what the largest eigenvalue allows
        knobs["learning_rate"] = 1.6 / torch.linalg.eigvalsh(problem.hessian(theta, problem.lam))[-1].item()
    weights = diagonal(problem)
    found = method(case.name, **knobs)(
        problem,
        theta,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        adapt=lambda x: {n: weights[n] * x[n] for n in x},
        update=sgd(problem),
    ).gradient
    target = case.target(problem, theta)
    cosine, ratio = agreement(found, target)
    assert cosine == pytest.approx(1.0, abs=1e-9)
    assert ratio == pytest.approx(1.0, abs=case.tolerance)
    assert relative_error(found, target) <= case.tolerance


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("loss", "role"), PROBLEMS)
def test_the_truth_is_the_slope_of_the_problem_solved_again(loss, role, size):
    features, examples = SIZES[size]
    problem = LinearModel(loss, role, seed=features, features=features, examples=examples)
    generator = torch.Generator().manual_seed(0)
    hypergradient = problem.true_hypergradient()
    for _ in range(2):
        direction = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in problem.lam.items()}
        slope = flat(direction) @ flat(hypergradient)
        assert problem.resolved_slope(direction) == pytest.approx(slope.item(), rel=1e-6, abs=1e-8)


def test_the_direct_gradient_matters_in_these_problems():
    with_direct = LinearModel("logistic", "weights", 1)
    without = LinearModel("logistic", "weights", 1, direct=0.0)
    assert relative_error(with_direct.true_hypergradient(), without.true_hypergradient()) > 0.1
