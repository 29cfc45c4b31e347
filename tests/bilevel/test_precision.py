"""Which forwards may run in low precision, why, and what the loss scales do."""

import copy
from typing import Any

import pytest
import torch

from benchmarks import precision as measured
from sama.bilevel.mixed import mixed, unscaled_meta_loss
from sama.bilevel.precision import Precision
from sama.hypergradient import METHODS, DifferentiableUpdate, method
from sama.hypergradient.program import WeightingProgram
from tests.oracles import LinearModel, agreement, relative_error

KNOBS: dict[str, dict[str, Any]] = {
    "sama": {"alpha": 0.01},
    "sama_na": {"alpha": 0.01},
    "darts": {"learning_rate": 0.3},
    "neumann": {"learning_rate": 0.1},
    "cg": {"iterations": 2},
    "itd": {"inner_steps": 2},
    "exact": {},
}
ROLES = ["network", "bias"]  # a weighting program, and one that is not


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The sums of a training depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(one_thread):
    """The BatchNorm model of the benchmark after a short training."""
    return measured.images(1, steps=40)


@pytest.mark.parametrize("free", [False, True], ids=["meta network", "free weights"])
def test_differences_need_float32_and_the_meta_loss_does_not(trained, free):
    """At alpha 0.01 bf16 keeps too little of θ ± εv; with the differences in float32 the meta loss may be in bf16.

    The meta network's gradients over one batch point in few directions: its cosine is near 1 or -1 whatever the noise.
    """
    precision, pairs = Precision("bf16", "cpu"), range(len(trained.batches))

    def worst(program) -> float:
        truth = [trained.hypergradient(trained.program, pair, free=free, alpha=0.01) for pair in pairs]
        found = [trained.hypergradient(program, pair, free=free, alpha=0.01) for pair in pairs]
        return min(agreement(low, full)[0] for low, full in zip(found, truth, strict=True))

    assert worst(mixed(trained.program, precision)) >= 0.99
    everything = worst(measured.Everything(trained.program, precision))
    assert everything < (0.95 if free else worst(mixed(trained.program, precision)))


def test_fp16_does_as_well(trained):
    truth = trained.hypergradient(trained.program, free=True, alpha=0.01)
    found = trained.hypergradient(mixed(trained.program, Precision("fp16", "cpu")), free=True, alpha=0.01)
    assert agreement(found, truth) == pytest.approx((1.0, 1.0), abs=0.01)


def context(problem: LinearModel) -> dict[str, Any]:
    parameters = {n: p.clone().requires_grad_() for n, p in problem.theta.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.3, momentum=0.8)
    return {"adapt": lambda x: {n: 0.3 * x[n] for n in x}, "update": DifferentiableUpdate(optimizer, parameters)}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", METHODS)
def test_the_scale_comes_out_of_every_method_as_it_went_in(name, role):
    problem, precision = LinearModel("logistic", role, 3), Precision("fp16", "cpu")
    precision.meta_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)  # the levels have scales of their own
    assert isinstance(mixed(problem, precision), WeightingProgram) == (role == "network")

    def result(program):
        sides = (problem.theta, problem.lam, problem.batch, problem.meta_batch)
        return method(name, **KNOBS[name])(program, *sides, **context(problem))

    plain, scaled = result(problem), result(mixed(problem, precision))
    assert relative_error({n: g / 2.0**10 for n, g in scaled.gradient.items()}, plain.gradient) <= 1e-12
    assert unscaled_meta_loss(scaled, precision).item() == pytest.approx(plain.meta_loss.item(), rel=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", METHODS)
def test_an_overflow_of_the_meta_gradient_shows_in_the_hypergradient(name, role, value):
    """Of θ alone: the direct gradient stays finite, and only the mixed product can show it."""
    problem = LinearModel("logistic", role, 3)

    def meta_loss(base, meta, batch):
        loss = LinearModel.meta_loss(problem, base, meta, batch)
        return loss + sum(p.sum() for p in base.values()) * torch.tensor(value).double()

    problem.meta_loss = meta_loss
    sides = (problem.theta, problem.lam, problem.batch, problem.meta_batch)
    found = method(name, **KNOBS[name])(problem, *sides, **context(problem)).gradient
    assert not all(g.isfinite().all() for g in found.values())


class Watched:
    """Notes in which type a product of two float32 tensors comes out, function by function."""

    def __init__(self) -> None:
        self.types: dict[str, torch.dtype] = {}
        self.matrix = torch.ones(2, 2)

    def note(self, name: str) -> None:
        self.types[name] = (self.matrix @ self.matrix).dtype

    def base_loss(self, base, meta, batch):
        self.note("base_loss")
        return base["t"].sum()

    def meta_loss(self, base, meta, batch):
        self.note("meta_loss")
        return base["t"].sum()

    def example_losses(self, base, batch):
        self.note("example_losses")
        return base["t"], base["t"][:, None]

    def weights(self, meta, features):
        self.note("weights")
        return features[:, 0]

    def prepare(self, batch):
        return batch

    def buffers(self):
        return []


@pytest.mark.parametrize("outside", [False, True], ids=["", "inside of somebody's autocast"])
@pytest.mark.parametrize(
    ("name", "low"), [("float32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_what_runs_in_which_precision(name, low, outside):
    inner, precision, base = Watched(), Precision(name, "cpu"), {"t": torch.ones(3)}
    program: Any = mixed(inner, precision)
    with torch.autocast("cpu", enabled=outside, dtype=torch.bfloat16):
        program.base_loss(base, {}, None)
        program.meta_loss(base, {}, None)
        program.weights({}, program.example_losses(base, None)[1])
        with precision.autocast():
            assert (inner.matrix @ inner.matrix).dtype == low
    full = ("base_loss", "example_losses", "weights")
    assert inner.types == {**dict.fromkeys(full, torch.float32), "meta_loss": low}
    assert not hasattr(program, "prepare")
    assert precision.same_losses == (name == "float32")


def step(precision: Precision, parameter, optimizer, factor: float) -> bool:
    """One base step on a loss whose gradient is `factor`."""
    (gradient,) = torch.autograd.grad(precision.base_scaler.scale((factor * parameter).sum()), parameter)
    parameter.grad = gradient
    precision.base_scaler.unscale_(optimizer)
    return precision.apply(precision.base_scaler, optimizer)


def test_an_overflow_skips_the_step_and_halves_the_scale():
    precision, parameter = Precision("fp16", "cpu"), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    assert not step(precision, parameter, optimizer, 1e34)  # times the scale: beyond float32
    assert torch.equal(parameter, torch.ones(3))
    assert precision.base_scaler.get_scale() == 2.0**15
    assert step(precision, parameter, optimizer, 1.0)
    assert torch.equal(parameter, torch.full((3,), 0.5))


@pytest.mark.parametrize("name", ["float32", "bf16"])
def test_without_fp16_nothing_is_scaled(name):
    precision, parameter = Precision(name, "cpu"), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    assert step(precision, parameter, optimizer, 1.0)
    assert torch.equal(parameter, torch.full((3,), 0.5))
    assert precision.meta_scaler.get_scale() == 1.0


def test_scales_resume_where_they_were():
    def run(precision, factors):
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        return [(step(precision, parameter, optimizer, f), precision.base_scaler.get_scale()) for f in factors]

    factors = [1.0, 1e34, 1.0, 1.0, 1.0, 1e34, 1.0]
    precisions = [Precision("fp16", "cpu") for _ in range(3)]
    for precision in precisions:
        precision.base_scaler.set_growth_interval(2)
    whole = run(precisions[0], factors)
    assert whole[3:5] == [(True, 2.0**16), (True, 2.0**16)]  # it grew again: the count of good steps is state too
    for cut in range(len(factors)):
        first, second = copy.deepcopy(precisions[1:])
        head = run(first, factors[:cut])
        second.load_state_dict(first.state_dict())
        assert head + run(second, factors[cut:]) == whole
        assert second.state_dict() == precisions[0].state_dict()


def test_bad_input():
    with pytest.raises(ValueError, match="expected precision float32, bf16 or fp16, got 'half'"):
        Precision("half", "cpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a state of precision bf16, got one of fp16"):
        Precision("bf16", "cpu").load_state_dict(Precision("fp16", "cpu").state_dict())
