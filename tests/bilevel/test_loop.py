"""The loop: what a step does, and that an interrupted run ends like an undisturbed one, bit for bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from sama.adaptation import adapt
from sama.bilevel import checkpoint
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.finite import require_finite
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient import METHODS, DifferentiableUpdate
from sama.hypergradient import method as hypergradient_method
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight

STEPS = 6


def make_loop(
    optimizer: str = "sgd", *, method: str = "sama", unroll_steps: int = 2, options=None, **knobs
) -> BilevelLoop:
    torch.manual_seed(0)
    inputs, labels = torch.randn(40, 5), torch.randint(0, 3, (40,))
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    network, teacher = MetaWeightNetwork(2, 7), EMATeacher(model, 0.8)
    nn.init.normal_(network.output.weight)  # zero weights would give a zero gradient to the hidden layer
    program = Reweight(model, network, features=("loss", "uncertainty"), teacher=teacher, normalize=True)

    def batch(indices, generator):
        noise = 0.1 * torch.randn(len(indices), 5, generator=generator)
        return LabelledBatch(inputs[indices] + noise, labels[indices], indices)

    if optimizer == "sgd":
        base_optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    else:
        base_optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    return BilevelLoop(
        program,
        model,
        network,
        base_optimizer,
        torch.optim.Adam(network.parameters(), lr=0.01),
        ShuffledBatches(40, 16, 1, batch),
        ShuffledBatches(40, 16, 2, batch),
        method=method,
        alpha=0.1,
        unroll_steps=unroll_steps,
        options=options,
        schedulers=[torch.optim.lr_scheduler.ExponentialLR(base_optimizer, 0.9)],
        after_base_step=lambda: teacher.update(model),
        extra_state={"teacher": teacher},
        **knobs,
    )


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for v in value.values() for t in tensors(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in tensors(v)]
    return [torch.tensor(value)] if isinstance(value, int | float) else []


def make_full(optimizer: str, precision: str) -> BilevelLoop:
    """All that has a state: dropout, BatchNorm, EMA, schedule, micro-batches, clipping, and loss scales that move."""
    loop = make_loop(optimizer, precision=precision, accumulate=2, meta_accumulate=2, clip_norm=1.0, meta_clip_norm=0.1)
    loop.precision.base_scaler.set_growth_interval(2)
    loop.precision.meta_scaler.set_growth_interval(2)
    return loop


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("interrupted_after", range(1, STEPS))
def test_resumed_equals_uninterrupted(tmp_path, optimizer, precision, interrupted_after):
    whole = make_full(optimizer, precision)
    for _ in range(STEPS):
        whole.step()
    first = make_full(optimizer, precision)
    for _ in range(interrupted_after):
        first.step()
    checkpoint.save(tmp_path / "state.pt", first.state_dict(), "key")
    second = make_loop(
        optimizer, precision=precision, accumulate=2, meta_accumulate=2, clip_norm=1.0, meta_clip_norm=0.1
    )
    torch.manual_seed(12345)  # what another process would start with
    state = checkpoint.load(tmp_path / "state.pt", "key")
    assert state is not None
    second.load_state_dict(state)
    for _ in range(STEPS - interrupted_after):
        second.step()
    left, right = tensors(whole.state_dict()), tensors(second.state_dict())
    assert len(left) == len(right) > 20
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
    if precision == "fp16":
        assert whole.precision.base_scaler.get_scale() > 2**16  # it moved, so that a state left out would be seen


def test_an_overflow_of_fp16_skips_the_base_step_and_its_meta_step():
    loop = make_loop("adamw", unroll_steps=1, precision="fp16")
    loop.step()
    before = copy.deepcopy((loop.base.state_dict(), loop.meta.state_dict()))
    loop.precision.base_scaler.update(1e38)
    result = loop.step()
    assert result.meta_loss is None
    for module, kept in zip((loop.base, loop.meta), before, strict=True):
        for name, p in module.named_parameters():
            assert torch.equal(p, kept[name])
    assert loop.precision.base_scaler.get_scale() < 1e38
    loop.precision.base_scaler.update(1024.0)
    assert loop.step().meta_loss is not None


def test_an_overflow_of_the_meta_loss_skips_the_meta_step_alone():
    loop = make_loop("adamw", unroll_steps=1, precision="fp16", options={"displace": True})
    loop.step()
    meta, base = copy.deepcopy(loop.meta.state_dict()), copy.deepcopy(loop.base.state_dict())
    loop.precision.meta_scaler.update(1e38)
    result = loop.step()
    assert result.meta_loss is not None
    assert result.meta_loss.isfinite()
    assert all(torch.equal(p, meta[name]) for name, p in loop.meta.named_parameters())
    assert not all(torch.equal(p, base[name]) for name, p in loop.base.named_parameters())
    assert all(p.isfinite().all() for p in loop.base.parameters())
    assert loop.precision.meta_scaler.get_scale() < 1e38


def test_meta_steps_come_every_unroll_steps():
    loop = make_loop(unroll_steps=3)
    before = copy.deepcopy(loop.meta.state_dict())
    happened = []
    for _ in range(6):
        happened.append(loop.step().meta_loss is not None)
    assert happened == [False, False, True, False, False, True]
    assert any(not torch.equal(v, before[k]) for k, v in loop.meta.state_dict().items())


def test_a_gradient_that_somebody_left_is_not_followed():
    clean, dirty = make_loop(), make_loop()
    for loop in (clean, dirty):
        if loop is dirty:
            for p in loop.base.parameters():
                p.grad = torch.ones_like(p)
        torch.manual_seed(1)
        loop.step()
    assert all(torch.equal(a, b) for a, b in zip(clean.base.parameters(), dirty.base.parameters(), strict=True))


def test_the_base_step_follows_the_weighted_gradient():
    loop, twin = make_loop(), make_loop()
    state = torch.get_rng_state()
    result = loop.step()
    torch.set_rng_state(state)
    assert isinstance(twin.program, Reweight)
    batch = twin.program.prepare(next(twin.batches))
    theta, lam = dict(twin.base.named_parameters()), dict(twin.meta.named_parameters())
    loss = twin.program.base_loss(theta, lam, batch)
    loss.backward()
    twin.base_optimizer.step()
    torch.testing.assert_close(result.base_loss, loss.detach())
    for name, value in loop.base.state_dict().items():
        torch.testing.assert_close(value, twin.base.state_dict()[name])


OPTIONS = {  # softmax regression has a flat direction, and the dense Hessian with it
    "exact": {"regularization": 0.01},
    "itd": {"inner_steps": 2},
    "cg": {"iterations": 3},
    "neumann": {"iterations": 3},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_to_tell_wrong_labels(method):
    torch.manual_seed(0)
    inputs = torch.randn(200, 6)
    labels = inputs[:, :3].argmax(-1)
    observed = labels.clone()
    observed[:60] = (labels[:60] + 1) % 3
    model, network = nn.Linear(6, 3), MetaWeightNetwork(1, 16)
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    loop = BilevelLoop(
        program,
        model,
        network,
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.optim.Adam(network.parameters(), lr=0.01),
        ShuffledBatches(140, 70, 0, lambda i, g: LabelledBatch(inputs[i], observed[i], i)),
        ShuffledBatches(60, 60, 1, lambda i, g: LabelledBatch(inputs[140 + i], labels[140 + i], i)),
        method=method,
        alpha=0.01,
        unroll_steps=1,
        options=OPTIONS.get(method),
    )
    for _ in range(150):
        loop.step()
    theta, lam = dict(model.named_parameters()), dict(network.named_parameters())
    _, features = program.example_losses(theta, LabelledBatch(inputs[:140], observed[:140], torch.arange(140)))
    weights = program.raw_weights(lam, features)
    assert weights[:60].mean() < 0.8 * weights[60:].mean()
    # a loop that climbs the meta loss learns the wrong labels, whose weights are then low too (plain training: 0.66)
    assert (model(inputs[:140]).argmax(-1) == labels[:140]).double().mean() > 0.75


@pytest.mark.parametrize("method", METHODS)
def test_the_loop_does_what_a_loop_written_out_does(method):
    torch.manual_seed(0)
    inputs, labels = torch.randn(40, 5, dtype=torch.float64), torch.randint(0, 3, (40,))
    model, network = nn.Linear(5, 3).double(), MetaWeightNetwork(2, 7).double()
    nn.init.normal_(network.output.weight)

    def parts() -> BilevelLoop:
        own, meta = copy.deepcopy(model), copy.deepcopy(network)
        teacher = EMATeacher(own, 0.6)
        optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, eps=1e-2)
        return BilevelLoop(
            Reweight(own, meta, features=("loss", "uncertainty"), teacher=teacher, normalize=True),
            own,
            meta,
            optimizer,
            torch.optim.SGD(meta.parameters(), lr=3.0),
            ShuffledBatches(30, 8, 1, lambda i, _: LabelledBatch(inputs[i], labels[i], i)),
            ShuffledBatches(10, 5, 2, lambda i, _: LabelledBatch(inputs[30 + i], labels[30 + i], i)),
            method=method,
            alpha=0.3,
            unroll_steps=2,
            options=OPTIONS.get(method),
            schedulers=[torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)],
            after_base_step=lambda: teacher.update(own),
            extra_state={"teacher": teacher},
        )

    loop, by_hand = parts(), parts()
    program, optimizer, teacher = by_hand.program, by_hand.base_optimizer, by_hand.extra_state["teacher"]
    assert isinstance(program, Reweight)
    assert isinstance(teacher, EMATeacher)
    theta, lam = dict(by_hand.base.named_parameters()), dict(by_hand.meta.named_parameters())
    for step in range(1, 7):
        batch = program.prepare(next(by_hand.batches))
        gradient = torch.autograd.grad(program.base_loss(theta, lam, batch), list(theta.values()))
        last = dict(zip(theta, gradient, strict=True))
        for name, parameter in theta.items():
            parameter.grad = last[name].clone()
        optimizer.step()
        if step % 2 == 0:
            meta_batch = next(by_hand.meta_batches)

            def of_optimizer(vector, last=last):
                return adapt(optimizer, theta, last, vector)

            context = {"adapt": of_optimizer, "update": DifferentiableUpdate(optimizer, theta), "alpha": 0.3}
            found = hypergradient_method(method, **OPTIONS.get(method, {}))(
                program, theta, lam, batch, meta_batch, **context
            )
            with torch.no_grad():
                for name, parameter in lam.items():
                    parameter.sub_(3.0 * found.gradient[name])
        optimizer.param_groups[0]["lr"] *= 0.5
        teacher.update(by_hand.base)
        result = loop.step()
        assert (result.meta_loss is not None) == (step % 2 == 0)
        for mine, theirs in (
            (loop.base, by_hand.base),
            (loop.meta, by_hand.meta),
            (loop.extra_state["teacher"], teacher),
        ):
            for left, right in zip(mine.state_dict().values(), theirs.state_dict().values(), strict=True):
                torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
        assert all(p.grad is None for module in (loop.base, loop.meta) for p in module.parameters())


def test_meta_parameters_and_meta_losses_that_are_not_finite_are_named():
    loop = make_loop()
    with torch.no_grad():
        loop.meta.get_parameter("hidden.bias").fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"step 1: the base loss is nan.* is meta parameter hidden\.bias"):
        loop.step()
    loop = make_loop(unroll_steps=1)
    assert isinstance(loop.meta_batches, ShuffledBatches)
    spoiled = replace(next(loop.meta_batches), inputs=torch.full((16, 5), float("inf")))
    loop.meta_batches.make = lambda indices, generator: spoiled
    with pytest.raises(FloatingPointError, match="step 1: the meta loss is nan"):
        loop.step()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_neither_nan_nor_infinity_is_finite(value):
    with pytest.raises(FloatingPointError, match=r"step 3: the loss is -?(nan|inf), expected a finite number"):
        require_finite(torch.tensor(value), "loss", 3, {"x": torch.ones(1)})


def test_the_order_of_batches_follows_their_seed_alone():
    def order(seed: int) -> list[int]:
        torch.rand(seed + 3)  # the global generator has no part in it
        return next(ShuffledBatches(50, 50, seed, lambda indices, _: indices)).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_a_loss_that_is_not_finite_stops_with_step_and_name():
    loop = make_loop()
    loop.step()
    with torch.no_grad():
        next(loop.base.parameters()).fill_(float("nan"))
    with pytest.raises(
        FloatingPointError,
        match=r"step 2: the base loss is nan.* is base parameter 0.weight",
    ):
        loop.step()


def test_checkpoint_of_another_run_or_damaged_is_ignored(tmp_path):
    path = tmp_path / "state.pt"
    assert checkpoint.load(path, "key") is None
    checkpoint.save(path, {"x": torch.ones(2)}, "key")
    assert checkpoint.load(path, "other") is None
    loaded = checkpoint.load(path, "key")
    assert loaded is not None
    assert torch.equal(loaded["x"], torch.ones(2))
    path.write_bytes(path.read_bytes()[:100])
    assert checkpoint.load(path, "key") is None
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_batches_visit_each_example_once_a_permutation():
    batches = ShuffledBatches(10, 4, 0, lambda indices, _: indices)
    seen = torch.cat([next(batches) for _ in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert all(len(next(batches)) == 4 for _ in range(5))
    with pytest.raises(ValueError, match="at least one example"):
        ShuffledBatches(0, 4, 0, lambda indices, _: indices)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_one_sided_difference_is_taken_before_the_update(optimizer):
    """At the base step's point, with its masks; and θ is still updated."""
    loop = make_loop(optimizer, unroll_steps=1, options={"difference": "one_sided"})
    assert isinstance(loop.program, Reweight)
    points, outputs = [], []
    original, theta = loop.program.example_losses, {n: p.detach().clone() for n, p in loop.base.named_parameters()}

    def watched(base, batch):
        losses, features = original(base, batch)
        points.append({n: p.detach().clone() for n, p in base.items()})
        outputs.append(losses.detach())
        return losses, features

    loop.program.example_losses = watched
    loop.alpha = 1e-3
    loop.step()
    at_step, perturbed = points  # two evaluations of the base batch, not three
    assert all(torch.equal(theta[n], at_step[n]) for n in theta)
    moved = torch.cat([(perturbed[n] - theta[n]).flatten() for n in theta]).norm()
    assert moved.item() == pytest.approx(1e-3, rel=1e-2)
    assert 0 < (outputs[0] - outputs[1]).abs().max() < 0.05  # other masks would change them by their own size
    assert any(not torch.equal(p, theta[n]) for n, p in loop.base.named_parameters())


def test_base_parameters_stay_displaced_when_asked():
    plain, displaced = make_loop(unroll_steps=1), make_loop(unroll_steps=1, options={"displace": True})
    for loop in (plain, displaced):
        torch.manual_seed(1)
        loop.step()
    both = zip(plain.base.parameters(), displaced.base.parameters(), strict=True)
    shift = torch.cat([(a - b).flatten() for a, b in both])
    assert shift.norm().item() == pytest.approx(0.1, rel=1e-4)  # ε‖v‖ = alpha


def test_an_unknown_option_of_the_method_is_named():
    with pytest.raises(ValueError, match="method sama has no knob iterations"):
        make_loop(options={"iterations": 3})
