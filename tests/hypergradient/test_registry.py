"""The registry: one interface for all methods, knobs that are checked, errors that say what to do."""

import inspect

import pytest
import torch

from sama.hypergradient import CONTEXT, METHODS, knobs_of, method
from tests.oracles import LinearModel, WeightedLogistic, flat


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_are_called_alike(name):
    parameters = list(inspect.signature(METHODS[name]).parameters.values())
    assert [p.name for p in parameters[:5]] == ["program", "base", "meta", "batch", "meta_batch"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[5:])
    assert METHODS[name].__doc__
    assert knobs_of(name)
    assert not set(knobs_of(name)) & CONTEXT


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_knob_is_named(name):
    with pytest.raises(ValueError, match=f"method {name} has no knob alhpa: expected any of "):
        method(name, alhpa=0.1)


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="unknown hypergradient method 'samma': expected one of sama, sama_na, darts"):
        method("samma")


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("sama", {"alpha": 0.0}, "expected alpha > 0, got 0"),
        ("sama", {"alpha": -0.1}, r"expected alpha > 0, got -0\.1"),
        ("sama", {"alpha": float("nan")}, "expected alpha > 0, got nan"),
        (
            "sama",
            {"alpha": 0.1, "difference": "forward"},
            "unknown difference 'forward': expected one of central, one_",
        ),
        ("sama", {}, "the hypergradient method sama needs alpha"),
        ("darts", {"learning_rate": 0.0}, "expected learning_rate > 0, got 0"),
        ("neumann", {"iterations": -1}, "expected iterations >= 0, got -1"),
        ("neumann", {"learning_rate": -0.5}, "expected learning_rate > 0, got -0.5"),
        ("cg", {"iterations": 0}, "expected iterations >= 1, got 0"),
        ("cg", {"tolerance": -1.0}, "expected tolerance >= 0, got -1"),
        ("cg", {"regularization": -1.0}, "expected regularization >= 0, got -1"),
        ("itd", {}, "the hypergradient method itd needs update"),
        ("itd", {"update": None, "inner_steps": 0}, "expected inner_steps >= 1, got 0"),
        ("exact", {"regularization": -1.0}, "expected regularization >= 0, got -1"),
        ("exact", {"limit": 5}, "expected at most 5, got 6; use cg or neumann, or raise limit"),
    ],
)
def test_bad_knobs(name, knobs, message):
    problem = LinearModel("squares", "network", 0)
    context = {"adapt": lambda x: x, **{k: knobs.pop(k) for k in list(knobs) if k in CONTEXT}}
    with pytest.raises(ValueError, match=message):
        method(name, **knobs)(problem, problem.theta, problem.lam, problem.batch, problem.meta_batch, **context)


def test_a_singular_hessian_asks_for_regularization():
    """A parameter that the base loss does not know."""
    problem = LinearModel("squares", "bias", 0)
    base = {**problem.theta, "idle": torch.ones(2, dtype=torch.float64)}
    arguments = (problem, base, problem.lam, problem.batch, problem.meta_batch)
    with pytest.raises(ValueError, match=r"is singular .*: expected a larger regularization than 0\.0, for instance"):
        method("exact")(*arguments)
    assert flat(method("exact", regularization=0.1)(*arguments).gradient).isfinite().all()


def test_conjugate_gradients_stop_where_there_is_no_curvature():
    """At a maximum of the base loss no direction has positive curvature: p = 0, and nothing is NaN."""

    class Upside(WeightedLogistic):
        def base_loss(self, base, meta, batch):
            return -super().base_loss(base, meta, batch)

    problem = Upside(0, direct=0.5)
    found = method("cg", iterations=4)(problem, problem.theta, problem.lam, problem.batch, problem.meta_batch)
    for name, value in problem.lam.items():
        torch.testing.assert_close(found.gradient[name], value)


def test_a_loose_tolerance_ends_conjugate_gradients_early():
    problem = LinearModel("squares", "decay", 0, features=8, examples=40)
    arguments = (problem, problem.theta, problem.lam, problem.batch, problem.meta_batch)
    loose = flat(method("cg", iterations=50, tolerance=0.3)(*arguments).gradient)
    counted = [flat(method("cg", iterations=n, tolerance=0.0)(*arguments).gradient) for n in range(1, 9)]
    assert any(torch.equal(loose, value) for value in counted[:4])
    assert not torch.allclose(loose, counted[-1], rtol=1e-4)


def test_conjugate_gradients_stand_still_once_solved():
    """Iterations beyond the end change nothing, though the residual is rounding error by then."""
    problem = LinearModel("squares", "decay", 0, features=4, examples=20)
    arguments = (problem, problem.theta, problem.lam, problem.batch, problem.meta_batch)
    enough, many = (method("cg", iterations=n, tolerance=1e-8)(*arguments).gradient for n in (8, 100))
    assert all(torch.equal(enough[n], many[n]) for n in enough)
