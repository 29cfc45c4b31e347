"""Sharded modules (FSDP2) in two gloo processes against one process that holds everything."""
# torch types shards, groups and submodules loosely:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false

import functools
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from sama.adaptation import RULES, adapt, register, remember
from sama.adaptation.registry import full_name
from sama.bilevel.full_state import full_state, load_full_state
from sama.bilevel.sharded import sharded, whole
from sama.hypergradient import Evaluated, MicroBatches, method
from sama.hypergradient.evaluation import RandomState, detached, gradients, moved
from sama.hypergradient.program import WeightingProgram
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from tests.bilevel.processes import run
from tests.bilevel.programs import Decay

ALPHA = 0.01


class Fuse(nn.Module):
    """The identity; counts its calls in a buffer, and raises in the one that was named."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.blows_in = 0

    def forward(self, x):
        self.calls += 1
        self.blows_in -= 1
        if self.blows_in == 0:
            raise ArithmeticError("blown")
        return x


class Shift(Decay):
    """A general program in which λ stands before the model: its gradient passes through the gathered parameters."""

    def base_loss(self, base, meta, batch):
        moved_batch = LabelledBatch(batch.inputs + meta["shift"], batch.labels, batch.indices)
        return super().meta_loss(base, meta, moved_batch)

    def meta_loss(self, base, meta, batch):
        return super().meta_loss(base, meta, batch) + meta["shift"].square().sum()


def network(dropout: float = 0.0) -> nn.Sequential:
    """Sizes that two do not divide, and a parameter of one value, of which the second process holds nothing."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(7, 3), nn.PReLU(), nn.Dropout(dropout), Fuse())
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), inner, nn.Linear(3, 3)).double()


def shard(model: nn.Sequential) -> nn.Sequential:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for unit in (model[0], model[2]):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    return fully_shard(model, mesh=mesh)


def program_of(kind: str, model: nn.Module):
    torch.manual_seed(1)
    sizes = {name: p.shape for name, p in model.named_parameters()}
    if kind == "decay":
        meta: nn.Module = nn.ParameterDict({n.replace(".", "/"): torch.randn(s) - 3 for n, s in sizes.items()}).double()
        return Decay(model), meta
    if kind == "shift":
        meta = nn.ParameterDict({"shift": torch.randn(5)}).double()
        return Shift(model), meta
    meta = MetaWeightNetwork(1, 4).double()
    nn.init.normal_(meta.output.weight)
    return Reweight(model, meta, features=("loss",), teacher=None, normalize=kind == "normalized"), meta


def halves(seed: int) -> list[LabelledBatch]:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = (
        torch.randn(8, 5, generator=generator, dtype=torch.float64),
        torch.randint(3, (8,), generator=generator),
    )
    return [LabelledBatch(inputs[k : k + 4], labels[k : k + 4], torch.arange(k, k + 4)) for k in (0, 4)]


def mean(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    every: list = [None] * dist.get_world_size()
    dist.all_gather_object(every, tensors)
    return {name: torch.stack([own[name] for own in every]).mean(0) for name in tensors}


def full(model: nn.Module, shards: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Whole tensors of the parameters, or of other values of their shards."""
    found = {}
    for name, p in model.named_parameters():
        value = p.detach()
        if shards is not None and isinstance(value, DTensor):
            value = DTensor.from_local(
                shards[name], value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
            )
        found[name] = whole(value) if shards is None or isinstance(value, DTensor) else shards[name]
    return found


METHODS = [
    ("plain", "sama", {}),
    ("plain", "sama", {"difference": "one_sided"}),
    ("normalized", "sama", {}),
    ("plain", "sama_na", {}),
    ("plain", "darts", {"learning_rate": 0.3}),
    ("decay", "sama", {}),
    ("decay", "sama", {"difference": "one_sided"}),
    ("decay", "darts", {"learning_rate": 0.3}),
    ("shift", "sama", {}),
    ("shift", "sama_na", {"difference": "one_sided"}),
    ("shift", "darts", {"learning_rate": 0.3}),
]


def hypergradient(kind: str, name: str, knobs: dict, *, in_shards: bool) -> dict[str, torch.Tensor]:
    """A base step of AdamW, then λ's gradient; on this process's half, or in one process on both."""
    model = network()
    model = shard(model) if in_shards else model
    program, meta = program_of(kind, model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3)
    lam = dict(meta.named_parameters())
    if in_shards:
        program = sharded(program, model)
        assert isinstance(program, WeightingProgram) == (kind in ("plain", "normalized"))
        batch, meta_batch = halves(2)[dist.get_rank()], halves(3)[dist.get_rank()]
        theta = detached(program.theta(), requires_grad=True)
        found = gradients(program.base_loss(theta, lam, batch), theta)
        for n, p in program.as_shards(found).items():
            program.parameters[n].grad = p
        adapted = functools.partial(program.adapt, optimizer, found)
    else:
        batch, meta_batch = MicroBatches(halves(2)), MicroBatches(halves(3))
        theta = dict(model.named_parameters())
        loss = sum(program.base_loss(theta, lam, part) for part in batch) / 2
        found = gradients(loss, theta)
        for n, p in theta.items():
            p.grad = found[n]
        adapted = functools.partial(adapt, optimizer, theta, found)
    optimizer.step()
    result = method(name, **knobs)(
        program, theta, lam, batch, meta_batch, adapt=adapted, alpha=ALPHA, evaluated=None
    )  # `theta` shares its memory with the parameters, so this is after the step
    if not in_shards:
        return {**result.gradient, "meta loss": result.meta_loss, "epsilon": result.epsilon}
    return mean({**result.gradient, "meta loss": result.meta_loss, "epsilon": result.epsilon})


def base_step_watched() -> tuple[dict, dict, bool]:
    """The loop's way: losses first, then a loss made of them; and a one-sided difference that reuses them."""
    model = shard(network())
    inner, meta = program_of("plain", model)
    program, lam = sharded(inner, model), dict(meta.named_parameters())
    batch, meta_batch = halves(2)[dist.get_rank()], halves(3)[dist.get_rank()]
    theta = detached(program.theta(), requires_grad=True)
    draws = RandomState()
    losses, features = program.example_losses(theta, batch)
    with torch.no_grad():
        weights = program.weights(lam, features)
    (weights * losses).mean().backward()
    known = Evaluated(draws, losses=losses.detach(), features=features)
    options = {"alpha": ALPHA, "adapt": lambda x: x}
    one_sided = method("sama", difference="one_sided")
    reused, anew = (
        one_sided(program, theta, lam, batch, meta_batch, evaluated=e, **options).gradient for e in (known, None)
    )
    same = all(torch.equal(reused[n], anew[n]) for n in lam)
    clean = all(p.grad is None for p in [*model.parameters(), *lam.values()])
    return full(model, {n: p.grad for n, p in theta.items()}), mean(reused), same and clean


def retained() -> tuple[dict, dict]:
    """The loop's way with a general program and a one-sided difference: λ's gradient first, then the base step's."""
    model = shard(network())
    inner, meta = program_of("shift", model)
    program, lam = sharded(inner, model), detached(dict(meta.named_parameters()), requires_grad=True)
    theta = detached(program.theta(), requires_grad=True)
    loss = program.base_loss(theta, lam, halves(2)[dist.get_rank()])
    of_meta = gradients(loss, lam, retain_graph=True)
    (loss / 2).backward()
    return mean(of_meta), full(model, {n: p.grad for n, p in theta.items()})


def perturbed() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Losses at θ and at θ + 0.1 of ones, of every kind."""
    found = []
    for kind in ("plain", "decay"):
        model = shard(network())
        inner, meta = program_of(kind, model)
        program, lam = sharded(inner, model), dict(meta.named_parameters())
        batch = halves(2)[dist.get_rank()]
        ones = {n: torch.ones_like(p) for n, p in program.theta().items()}
        elsewhere = moved(program.theta(), ones, 0.1)
        with torch.no_grad():
            here, there = (program.base_loss(theta, lam, batch) for theta in (program.theta(), elsewhere))
        with_graph = program.base_loss(elsewhere, lam, batch).detach()
        found.append((here, there, with_graph, program.base_loss(program.theta(), lam, batch).detach()))
    return found


def state_of(model: nn.Module) -> list[torch.Tensor | None]:
    gradients = [None if p.grad is None else p.grad.to_local().clone() for p in model.parameters()]
    values = [p.to_local().detach().clone() for p in model.parameters()]
    return [*values, *(b.clone() for b in model.buffers()), torch.get_rng_state(), *gradients]


def same_state(one: list, other: list) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def untouched() -> dict[str, tuple[bool, bool, bool]]:
    """Per case: whether it raised, whether all is as before, and whether the next evaluation gives the same again."""
    found = {}
    for kind, name, blows_in in [
        ("plain", "sama_na", 0),
        ("plain", "sama_na", 1),
        ("plain", "sama_na", 3),
        ("decay", "sama_na", 0),
        ("decay", "sama_na", 3),
        ("shift", "darts", 3),
    ]:
        model = shard(network(dropout=0.5))
        inner, meta = program_of(kind, model)
        program, lam = sharded(inner, model), dict(meta.named_parameters())
        batch, meta_batch = halves(2)[dist.get_rank()], halves(3)[dist.get_rank()]
        for n, p in program.parameters.items():
            p.grad = None if n == "0.weight" else torch.full_like(p, 7.0)
        call = functools.partial(
            method(name), program, program.theta(), lam, batch, meta_batch, adapt=lambda x: x, alpha=ALPHA
        )
        first = None if blows_in == 1 else call().gradient  # 1: it blows in the very first forward of the module
        before = state_of(model)
        model[2][3].blows_in = blows_in
        raised = False
        try:
            call()
        except ArithmeticError:
            raised = True
        model[2][3].blows_in = 0
        kept = same_state(before, state_of(model))
        again = call().gradient
        same = first is None or all(torch.equal(first[n], again[n]) for n in lam)
        found[f"{kind}, {name}, {blows_in}"] = (raised == (blows_in > 0), kept, same)
    return found


def with_dropout() -> dict[str, torch.Tensor]:
    model = shard(network(dropout=0.5))
    inner, meta = program_of("plain", model)
    program, rank = sharded(inner, model), dist.get_rank()
    torch.manual_seed(100 + rank)
    call = method("sama_na")
    lam = dict(meta.named_parameters())
    return mean(call(program, program.theta(), lam, halves(2)[rank], halves(3)[rank], alpha=ALPHA).gradient)


class Gathering(torch.optim.SGD):
    """An optimizer whose adaptation comes out whole in every process."""


@contextmanager
def registered() -> Iterator[None]:
    """Gathering has a rule in this block alone: the rules of all are what another test counts."""
    register(
        Gathering, lambda step, x: 2 * x.redistribute(placements=[Replicate()]) if isinstance(x, DTensor) else 2 * x
    )
    try:
        yield
    finally:
        del RULES[full_name(Gathering)]


def optimizers(model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    import timm.optim

    every, matrices = list(model.parameters()), [p for p in model.parameters() if p.ndim == 2]
    return {
        "SGD": torch.optim.SGD(every, lr=0.1, momentum=0.9, nesterov=True),
        "AdamW": torch.optim.AdamW(every, lr=0.1, eps=1e-3),
        "Adam, coupled decay": torch.optim.Adam(every, lr=0.1, eps=1e-3, weight_decay=0.1, amsgrad=True),
        "RMSprop": torch.optim.RMSprop(every, lr=0.1, eps=1e-3, weight_decay=0.1, centered=True),
        "gathering": Gathering(every, lr=0.1),
        "Muon": torch.optim.Muon(matrices, lr=0.1),
        "LAMB": timm.optim.Lamb(every, lr=0.1, weight_decay=0.1),
    }


@registered()
def adaptation(*, in_shards: bool) -> dict[str, dict[str, torch.Tensor]]:
    """`Dᵀx` after three steps of each optimizer, whole."""
    found = {}
    for name in optimizers(network()):
        model = network()
        model = shard(model) if in_shards else model
        optimizer = optimizers(model)[name]
        parameters = {n: p for n, p in model.named_parameters() if name != "Muon" or p.ndim == 2}
        program = sharded(program_of("plain", model)[0], model) if in_shards else None
        torch.manual_seed(5)
        for _ in range(3):
            drawn = {n: torch.randn(p.shape, dtype=p.dtype) for n, p in parameters.items()}
            x = {n: torch.randn(p.shape, dtype=p.dtype) for n, p in parameters.items()}
            for n, p in parameters.items():
                p.grad = (
                    distribute_tensor(drawn[n], p.device_mesh, p.placements) if isinstance(p, DTensor) else drawn[n]
                )
            before = remember(optimizer)
            optimizer.step()
        if program is None:
            found[name] = adapt(optimizer, parameters, drawn, x, before=before, clip_factor=0.5)
        else:
            mine = [
                {n: distribute_tensor(v[n], p.device_mesh, p.placements).to_local() for n, p in parameters.items()}
                for v in (drawn, x)
            ]
            adapted = program.adapt(optimizer, *mine, before=before, clip_factor=0.5)
            rest = {n: torch.zeros_like(v) for n, v in program.theta().items()}
            found[name] = {n: v for n, v in full(model, {**rest, **adapted}).items() if n in parameters}
    return found


def refusals() -> dict[str, str]:
    """What is asked for in vain, and the answer."""
    model = shard(network())
    inner, meta = program_of("plain", model)
    program, lam = sharded(inner, model), dict(meta.named_parameters())
    batch = halves(2)[dist.get_rank()]
    half = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    fully_shard(half, mesh=init_device_mesh("cpu", (2,)), ignored_params=set(half[1].parameters()))
    asgd = torch.optim.ASGD(model.parameters())
    asked = {
        "second order": lambda: method("neumann")(program, program.theta(), lam, batch, batch),
        "forward mode": lambda: method("sama_na", difference="exact")(
            program, program.theta(), lam, batch, batch, alpha=ALPHA
        ),
        "not sharded": lambda: sharded(inner, network()),
        "half sharded": lambda: sharded(inner, half),
        "unknown": lambda: program.base_loss({"9.weight": torch.zeros(1)}, lam, batch),
        "probed": lambda: program.adapt(asgd, program.theta(), program.theta()),
    }
    answers, before = {}, program.base_loss(program.theta(), lam, batch)
    for name, question in asked.items():
        try:
            question()
            answers[name] = "no error"
        except ValueError as error:
            answers[name] = str(error)
    assert torch.equal(program.base_loss(program.theta(), lam, batch), before)
    assert all(p.grad is None for p in model.parameters())
    return answers


def states(state: dict) -> tuple[dict, dict, dict, dict]:
    """From one process into shards, as they are and after a step; and from these into other shards."""
    unused = shard(network())
    full_state(unused, optimizer := torch.optim.AdamW(unused.parameters()))
    assert not optimizer.state, "nothing steps the optimizer"

    def fresh():
        model = shard(network())
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        return model, torch.optim.AdamW(model.parameters(), lr=0.9)

    model, optimizer = fresh()
    load_full_state(model, optimizer, state)
    same = full_state(model, optimizer)
    step(model, optimizer)
    after = full_state(model, optimizer)
    everyone: list = [after]
    dist.broadcast_object_list(everyone, src=0)
    again, other = fresh()
    load_full_state(again, other, everyone[0])
    once_more = full_state(again, other)
    step(model, optimizer), step(again, other)
    assert all(torch.equal(a, b) for a, b in zip(full(model).values(), full(again).values(), strict=True))
    return same, after, once_more, full(model)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.3) * p.detach()
    optimizer.step()
    optimizer.zero_grad()


def everything(state: dict) -> dict:
    """All that the tests ask of the processes, name -> value or traceback."""
    found = {}
    for kind, name, knobs in METHODS:
        found[f"{kind}, {name}, {knobs}"] = functools.partial(hypergradient, kind, name, knobs, in_shards=True)
    for check in (base_step_watched, retained, perturbed, untouched, with_dropout, refusals):
        found[check.__name__] = check
    found["adaptation"] = functools.partial(adaptation, in_shards=True)
    found["states"] = functools.partial(states, state)
    for name, check in found.items():
        torch.manual_seed(dist.get_rank())
        try:
            found[name] = check()
        except Exception:
            found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def start():
    """A module and an optimizer after two steps, in one process."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(2):
        step(model, optimizer)
    return model, optimizer


@pytest.fixture(scope="module")
def outcome(start, tmp_path_factory):
    both = run(2, everything, tmp_path_factory.mktemp("processes"), full_state(*start), start="spawn")

    def of(name):
        for rank, found in enumerate(both):
            assert not isinstance(found[name], str), f"process {rank}: {found[name]}"
        return [found[name] for found in both]

    return of


def close(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-10 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("kind", "name", "knobs"), METHODS)
def test_two_processes_give_the_hypergradient_of_the_global_batch(outcome, kind, name, knobs):
    expected = hypergradient(kind, name, knobs, in_shards=False)
    for found in outcome(f"{kind}, {name}, {knobs}"):
        difference = {n: found[n] - expected[n] for n in expected if n not in ("meta loss", "epsilon")}
        size = torch.stack([expected[n].norm() for n in difference]).norm()
        assert size > 1e-4
        # the difference divides rounding errors of the losses by ε
        assert torch.stack([d.norm() for d in difference.values()]).norm() < 1e-10 * size
        torch.testing.assert_close(found["meta loss"], expected["meta loss"])
        torch.testing.assert_close(found["epsilon"], expected["epsilon"])


def test_losses_of_examples_are_differentiated_by_the_shards(outcome):
    model = network()
    program, meta = program_of("plain", model)
    theta, lam = dict(model.named_parameters()), dict(meta.named_parameters())
    batch, meta_batch = MicroBatches(halves(2)), MicroBatches(halves(3))
    of_base = gradients(sum(program.base_loss(theta, detached(lam, requires_grad=False), b) for b in batch) / 2, theta)
    call = method("sama", difference="one_sided")
    expected = call(program, theta, lam, batch, meta_batch, adapt=lambda x: x, alpha=ALPHA).gradient
    for found, mixed, same_and_clean in outcome("base_step_watched"):
        close(found, of_base)
        close(mixed, expected)
        assert same_and_clean


def test_a_retained_loss_is_differentiated_twice_over(outcome):
    model = network()
    program, meta = program_of("shift", model)
    theta, lam = dict(model.named_parameters()), dict(meta.named_parameters())
    loss = sum(program.base_loss(theta, lam, batch) for batch in halves(2)) / 2
    of_meta = gradients(loss, lam, retain_graph=True)
    of_half = gradients(loss / 2, theta)
    for found_of_meta, found_of_half in outcome("retained"):
        close(found_of_meta, of_meta)
        close(found_of_half, of_half)


def test_perturbed_losses_are_those_at_the_perturbed_parameters(outcome):
    model = network()
    for k, kind in enumerate(("plain", "decay")):
        program, meta = program_of(kind, model)
        lam = dict(meta.named_parameters())
        theta = {n: p.detach() for n, p in model.named_parameters()}
        elsewhere = moved(theta, {n: torch.ones_like(p) for n, p in theta.items()}, 0.1)
        for batch, found in zip(halves(2), outcome("perturbed"), strict=True):
            here, there, with_graph, here_again = found[k]
            torch.testing.assert_close(here, program.base_loss(theta, lam, batch).detach())
            torch.testing.assert_close(there, program.base_loss(elsewhere, lam, batch).detach())
            assert (there - here).abs() > 1e-3
            assert torch.equal(there, with_graph)
            assert torch.equal(here, here_again)


def test_nothing_is_changed_also_where_a_forward_raises(outcome):
    for found in outcome("untouched"):
        assert found == dict.fromkeys(found, (True, True, True))


def test_each_process_draws_by_itself_and_both_signs_alike(outcome):
    model = network(dropout=0.5)
    program, meta = program_of("plain", model)
    theta, lam = dict(model.named_parameters()), dict(meta.named_parameters())
    of_meta = []
    for rank, batch in enumerate(halves(3)):
        torch.manual_seed(100 + rank)
        of_meta.append(gradients(program.meta_loss(theta, lam, batch), theta))
    v = {n: torch.stack([g[n] for g in of_meta]).mean(0) for n in theta}
    epsilon = ALPHA / torch.cat([x.flatten() for x in v.values()]).norm()
    loss = torch.zeros((), dtype=torch.float64)
    for rank, batch in enumerate(halves(2)):
        sides = []
        for sign in (1, -1):
            torch.manual_seed(100 + rank)
            with torch.no_grad():
                sides.append(program.example_losses(moved(theta, v, sign * epsilon), batch))
        (plus, f_plus), (minus, f_minus) = sides
        slopes = (plus - minus) / (2 * epsilon)
        loss = loss - (program.weights(lam, (f_plus + f_minus) / 2) * slopes).mean() / 2
    expected = gradients(loss, lam)
    for found in outcome("with_dropout"):
        close(found, expected)


def test_adaptation_of_shards_is_that_of_whole_parameters(outcome):
    expected = adaptation(in_shards=False)
    for found in outcome("adaptation"):
        for name, value in expected.items():
            assert max(x.abs().max() for x in value.values()) > 1e-3
            if name == "Muon":  # iterates in bfloat16
                for n in value:
                    torch.testing.assert_close(found[name][n], value[n], rtol=0.02, atol=1e-3)
            else:
                close(found[name], value)


def test_what_cannot_be_done_is_refused(outcome):
    for answers in outcome("refusals"):
        for name, part in {
            "second order": "no second derivatives: use sama",
            "forward mode": "use 'central'",
            "not sharded": "expected a module that fully_shard was called on, got Sequential",
            "half sharded": "parameter 1.weight: expected one that fully_shard has sharded",
            "unknown": "no trainable parameter 9.weight",
            "probed": "the optimizer ASGD is adapted by steps of a copy",
        }.items():
            assert part in answers[name], name


def flat(tree) -> dict:
    if not isinstance(tree, dict | list):
        return {"": tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {f"{key}/{rest}": value for key, item in items for rest, value in flat(item).items()}


def same(one, other) -> bool:
    one, other = flat(one), flat(other)
    equal = [torch.equal(a, other[n]) if isinstance(a, torch.Tensor) else a == other[n] for n, a in one.items()]
    return one.keys() == other.keys() and all(equal)


def test_full_state_passes_between_one_process_and_two(outcome, start):
    (as_loaded, after, once_more, final), (_, nothing, _, _) = outcome("states")
    state = full_state(*start)
    assert same(as_loaded, state)
    assert not same(after, state)
    assert same(once_more, after)
    assert nothing == {}
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.9)
    load_full_state(model, optimizer, after)
    assert same(full_state(model, optimizer), after)
    step(model, optimizer)
    for name, p in model.named_parameters():
        assert torch.equal(p, final[name])
    whole_by_torch = {"module": model.state_dict(), "optimizer": optimizer.state_dict()}
    assert same(full_state(model, optimizer), whole_by_torch), "it is what an unsharded loop writes"
    with pytest.raises(ValueError, match="got an empty one"):
        load_full_state(model, optimizer, nothing)
