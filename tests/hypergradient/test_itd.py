"""Iterative differentiation through real optimizers, against a numerical derivative of running them."""

import pytest
import torch

from sama.hypergradient import DifferentiableUpdate, method
from tests.oracles import LinearModel, agreement, flat

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.3),
    "sgd nesterov": lambda groups: torch.optim.SGD(groups, lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.1),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.05, betas=(0.7, 0.8), weight_decay=0.1),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.05, betas=(0.7, 0.8), weight_decay=0.1),
    "nadam": lambda groups: torch.optim.NAdam(groups, lr=0.05),
    "adamax": lambda groups: torch.optim.Adamax(groups, lr=0.05),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.05),
    "adadelta": lambda groups: torch.optim.Adadelta(groups, lr=0.5),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.05, momentum=0.5, centered=True),
}


@pytest.fixture(autouse=True)
def double_precision():
    """The optimizers keep their step counter in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def started(problem: LinearModel, make, steps: int = 2):
    """An optimizer with two groups that has taken some steps, so that its state is not empty."""
    parameters = {n: p.clone().requires_grad_() for n, p in problem.theta.items()}
    head, tail = parameters.values()
    optimizer = make([{"params": [head]}, {"params": [tail], "lr": 0.021}])
    for _ in range(steps):
        run_step(problem, parameters, optimizer, problem.lam)
    return parameters, optimizer


def run_step(problem, parameters, optimizer, lam):
    loss = problem.base_loss(parameters, lam, problem.batch)
    for p, g in zip(parameters.values(), torch.autograd.grad(loss, list(parameters.values())), strict=True):
        p.grad = g
    optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("loss", "role"), [("squares", "decay"), ("logistic", "network")])
def test_equals_the_numerical_derivative_of_running_the_optimizer(name, loss, role):
    problem = LinearModel(loss, role, 2, features=5, examples=20)
    parameters, optimizer = started(problem, OPTIMIZERS[name])
    found = method("itd", inner_steps=3)(
        problem,
        parameters,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        update=DifferentiableUpdate(optimizer, parameters),
    )

    def run(lam):
        twin_parameters, twin = started(problem, OPTIMIZERS[name])
        for _ in range(3):
            run_step(problem, twin_parameters, twin, lam)
        return problem.meta_loss(twin_parameters, lam, problem.meta_batch).item()

    def slope(key, index, step):
        def moved(sign):
            lam = {n: p.clone() for n, p in problem.lam.items()}
            lam[key][index] += sign * step
            return run(lam)

        return (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)

    numerical = {n: torch.tensor([slope(n, i, 1e-3) for i in range(len(p))]) for n, p in problem.lam.items()}
    assert found.meta_loss.item() == pytest.approx(run(problem.lam), rel=1e-12)
    cosine, ratio = agreement(found.gradient, numerical)
    assert cosine == pytest.approx(1.0, abs=1e-8)
    assert ratio == pytest.approx(1.0, abs=1e-6)
    assert (flat(found.gradient) - flat(numerical)).norm() <= 1e-6 * flat(numerical).norm()


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_a_coordinate_that_never_saw_a_gradient_passes_nothing_back(name):
    problem = LinearModel("squares", "weights", 2, features=4, examples=12)
    without = LinearModel("squares", "weights", 2, features=4, examples=12)
    for p in (problem, without):
        p.batch[0][:, 3] = 0.0
        p.base_loss = lambda base, meta, batch, p=p: (meta["values"].exp() * p._losses(base, batch)).mean()
    without.meta_batch[0][:, 3] = 0.0
    problem.theta["tail"][1] = 0.0  # L2 decay has nothing to act on either
    without.theta["tail"][1] = 0.0
    found = []
    for p in (problem, without):
        parameters, optimizer = started(p, OPTIMIZERS[name])
        update = DifferentiableUpdate(optimizer, parameters)
        found.append(method("itd", inner_steps=3)(p, parameters, p.lam, p.batch, p.meta_batch, update=update).gradient)
    torch.testing.assert_close(found[0]["values"], found[1]["values"])
    assert found[0]["values"].norm() > 0


def test_one_step_of_gradient_descent_is_darts():
    problem = LinearModel("logistic", "weights", 4)
    parameters = {n: p.clone().requires_grad_() for n, p in problem.theta.items()}
    update = DifferentiableUpdate(torch.optim.SGD(parameters.values(), lr=0.37), parameters)
    arguments = (problem, parameters, problem.lam, problem.batch, problem.meta_batch)
    unrolled = method("itd", inner_steps=1)(*arguments, update=update).gradient
    darts = method("darts", learning_rate=0.37, difference="exact")(*arguments).gradient
    torch.testing.assert_close(unrolled, darts)


def test_the_first_momentum_buffer_under_maximize():
    problem = LinearModel("logistic", "decay", 3)
    parameters = {n: p.clone().requires_grad_() for n, p in problem.theta.items()}
    optimizer = torch.optim.SGD(
        parameters.values(), lr=0.02, momentum=0.8, dampening=0.3, weight_decay=0.05, maximize=True
    )
    found = method("itd", inner_steps=2)(
        problem,
        parameters,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        update=DifferentiableUpdate(optimizer, parameters),
    )

    def after(lam):
        point, buffer = problem.theta, None
        for _ in range(2):
            g = torch.func.grad(problem.base_loss)(point, lam, problem.batch)
            g = {n: 0.05 * point[n] - g[n] for n in g}
            buffer = g if buffer is None else {n: 0.8 * buffer[n] + 0.7 * g[n] for n in g}
            point = {n: point[n] - 0.02 * buffer[n] for n in g}
        return problem.meta_loss(point, lam, problem.meta_batch)

    torch.testing.assert_close(found.gradient, torch.func.grad(after)(problem.lam), rtol=1e-10, atol=0)


def test_the_optimizer_and_its_parameters_stay_as_they_were():
    problem = LinearModel("squares", "weights", 0)
    parameters, optimizer = started(problem, OPTIMIZERS["adamw"])
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)  # puts a method of its own in the place of step
    gradients = {n: p.grad for n, p in parameters.items()}
    values = [t.clone() for p in parameters.values() for t in (p.detach(), *optimizer.state[p].values())]
    versions = [p._version for p in parameters.values()]
    method("itd", inner_steps=2)(
        problem,
        parameters,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        update=DifferentiableUpdate(optimizer, parameters),
    )
    after = [t for p in parameters.values() for t in (p.detach(), *optimizer.state[p].values())]
    assert all(torch.equal(a, b) for a, b in zip(values, after, strict=True))
    assert versions == [p._version for p in parameters.values()]
    assert all(p.grad is gradients[n] for n, p in parameters.items())
    assert not optimizer.defaults["differentiable"]


def test_an_optimizer_that_cannot_be_differentiated_is_named():
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    with pytest.raises(ValueError, match="step of LBFGS cannot be differentiated: expected an optimizer"):
        DifferentiableUpdate(torch.optim.LBFGS([parameter]), {"w": parameter})
    with pytest.raises(ValueError, match="parameter w: the optimizer SGD does not hold it"):
        DifferentiableUpdate(torch.optim.SGD([parameter]), {"w": torch.ones(2)})
