"""Several gloo processes against one process that is handed the same shards."""
# torch types shards, groups and submodules loosely:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportPossiblyUnboundVariable=false
# pyright: reportOptionalSubscript=false, reportIncompatibleMethodOverride=false

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sama.bilevel import checkpoint
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.distributed import Mean
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient.evaluation import gradients
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from tests.bilevel import by_hand
from tests.bilevel.processes import run
from tests.bilevel.programs import Decay

ALPHA = 0.01


def make_loop(
    kind="weights", name="sama", *, world_size=1, rank=0, parts=1, group=None, unroll_steps=1, dropout=0.0, **knobs
) -> BilevelLoop:
    """A loop on 32 examples, 4 a micro-batch; the data and the start are the same everywhere."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))
    model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 3)).double()
    if kind == "batch norm":
        model.insert(1, nn.BatchNorm1d(16).double())
    teacher = EMATeacher(model, 0.5)
    if kind == "decay":
        meta: nn.Module = nn.ParameterDict(
            {n.replace(".", "/"): torch.full_like(p, -4.0) for n, p in model.named_parameters()}
        )
        program: object = Decay(model)
    else:
        meta = MetaWeightNetwork(2, 6).double()
        nn.init.normal_(meta.output.weight)
        program = Reweight(model, meta, features=("loss", "uncertainty"), teacher=teacher, normalize=True)

    def batch(indices, generator):
        noise = 0.1 * torch.randn(len(indices), 5, generator=generator, dtype=torch.float64)
        return LabelledBatch(inputs[indices] + noise, labels[indices], indices)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3)
    share = {"rank": rank, "world_size": world_size}
    return BilevelLoop(
        program,
        model,
        meta,
        optimizer,
        torch.optim.SGD(meta.parameters(), lr=1.0, momentum=0.5),
        ShuffledBatches(32, 4, 1, batch, **share),
        ShuffledBatches(32, 4, 2, batch, **share),
        method=name,
        alpha=ALPHA,
        unroll_steps=unroll_steps,
        accumulate=parts,
        meta_accumulate=parts,
        schedulers=[torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)],
        after_base_step=lambda: teacher.update(model),
        extra_state={"teacher": teacher},
        group=group,
        **knobs,
    )


def values(loop: BilevelLoop) -> torch.Tensor:
    tensors = [*loop.base.parameters(), *loop.base.buffers(), *loop.meta.parameters()]
    return torch.cat([t.detach().double().flatten() for t in tensors])


class Traffic(TorchDispatchMode):
    """How many values each collective moved."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self.calls.append((function._opname, sum(t.numel() for t in args[0])))
        return function(*args, **(kwargs or {}))


def train(kinds, steps: int, unroll_steps: int) -> dict[str, torch.Tensor]:
    """In each process: a few steps of every kind."""
    world = {"world_size": dist.get_world_size(), "rank": dist.get_rank(), "group": dist.group.WORLD}
    found = {}
    for kind, name, options, parts in kinds:
        loop = make_loop(kind, name, options=options, parts=parts, unroll_steps=unroll_steps, **world)
        for _ in range(steps):
            loop.step()
        found[f"{kind}, {name}, {options}, {parts}"] = values(loop)
    return found


KINDS: list[tuple[str, str, dict, int]] = [  # program, method, options, micro-batches a process
    ("weights", "sama", {}, 1),
    ("weights", "sama", {}, 3),
    ("weights", "sama", {"displace": True}, 1),
    ("weights", "sama", {"difference": "one_sided"}, 2),
    ("weights", "neumann", {"iterations": 2}, 1),
    ("decay", "sama", {}, 2),
    ("decay", "darts", {}, 1),
    ("batch norm", "sama_na", {}, 1),
]


def average_by_hand(
    kind: str, name: str, options: dict, parts: int, world_size: int, steps: int, unroll_steps: int
) -> BilevelLoop:
    """One process: per shard a gradient and a hypergradient, then their plain averages."""
    share = {"parts": parts, "unroll_steps": unroll_steps, "world_size": world_size}
    shards = [make_loop(kind, name, options=options, rank=r, **share) for r in range(world_size)]
    for _ in range(steps):
        by_hand.step(shards)
    return shards[0]


@pytest.mark.parametrize(("world_size", "start"), [(2, "spawn"), (4, "forkserver")])
def test_the_mean_over_processes_is_that_over_shards(world_size, start, tmp_path):
    found = run(world_size, train, tmp_path, KINDS, 4, 2, start=start)
    for kind, name, options, parts in KINDS:
        key = f"{kind}, {name}, {options}, {parts}"
        averaged = values(average_by_hand(kind, name, options, parts, world_size, 4, 2))
        start = values(make_loop(kind, name, options=options))
        for rank in range(world_size):
            assert torch.equal(found[rank][key], found[0][key]), key
        torch.testing.assert_close(found[0][key] - start, averaged - start, rtol=1e-7, atol=1e-10, msg=key)
        assert (averaged - start).abs().max() > 1e-3, key


def count() -> dict[str, list[tuple[str, int]]]:
    world = {"world_size": dist.get_world_size(), "rank": dist.get_rank(), "group": dist.group.WORLD}
    found = {}
    for kind in ("weights", "decay", "batch norm"):
        for accumulate in (1, 3):
            loop = make_loop(kind, parts=accumulate, unroll_steps=2, **world)
            for step in ("base", "base and meta"):
                with Traffic() as traffic:
                    loop.step()
                found[f"{kind}, {step}, {accumulate}"] = traffic.calls
    return found


def test_a_meta_step_moves_the_meta_gradient_and_nothing_else(tmp_path):
    found = run(2, count, tmp_path)[0]
    for kind in ("weights", "decay", "batch norm"):
        loop = make_loop(kind)
        theta, lam = (sum(p.numel() for p in m.parameters()) for m in (loop.base, loop.meta))
        for accumulate in (1, 3):
            base = found[f"{kind}, base, {accumulate}"]
            both = found[f"{kind}, base and meta, {accumulate}"]
            buffers = [call for call in base if call[0] == "broadcast_"]
            assert sum(n for _, n in buffers) == sum(b.numel() for b in loop.base.buffers())
            told = len(list(loop.base.parameters()))  # for each whether anybody used it
            rest = [[call for call in calls if call not in buffers] for calls in (base, both)]
            assert rest == [[("allreduce_", theta + told)], [("allreduce_", theta + told), ("allreduce_", lam)]]


class TwoHeads(nn.Module):
    """Batches of one label go through one head; a third is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(3, 2) for _ in range(3)).double()

    def forward(self, inputs, head):
        return self.heads[head](inputs)


class Conditional:
    """A program whose micro-batches use one head each; λ is a scalar decay."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def buffers(self):
        return []

    def base_loss(self, base, meta, batch):
        return self.meta_loss(base, meta, batch) + meta["decay"].exp() * base["heads.0.weight"].square().sum()

    def meta_loss(self, base, meta, batch):
        inputs, head = batch
        return torch.func.functional_call(self.model, dict(base), (inputs, head)).square().mean()


class Alternating:
    """One stream of batches for heads 0, 0, 1, 1, 0, …, dealt to the processes in turn."""

    def __init__(self, rank: int, world_size: int) -> None:
        self.k, self.rank, self.world_size = 0, rank, world_size

    def __next__(self):
        number, self.k = self.k * self.world_size + self.rank, self.k + 1
        return torch.full((4, 3), 0.1 * (number + 1), dtype=torch.float64), number // 2 % 2

    def state_dict(self):
        return {"k": self.k}

    def load_state_dict(self, state):
        self.k = state["k"]


def conditional(group=None) -> BilevelLoop:
    torch.manual_seed(0)
    model, meta = TwoHeads(), nn.ParameterDict({"decay": torch.tensor(-3.0, dtype=torch.float64)})
    teacher = copy.deepcopy(model)
    if group is not None and dist.get_rank():  # what the first process has is what all start with
        for module in (model, teacher):
            nn.init.normal_(module.heads[2].weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    meta_optimizer = torch.optim.SGD(meta.parameters(), lr=1.0)
    world_size = 1 if group is None else group.size()
    streams = [Alternating(0 if group is None else group.rank(), world_size) for _ in range(2)]
    parts = {"accumulate": 4 // world_size, "meta_accumulate": 2 // world_size}
    options = {"method": "sama", "alpha": 0.1, "unroll_steps": 2, "group": group, **parts}
    options["extra_state"] = {"teacher": teacher}
    return BilevelLoop(Conditional(model), model, meta, optimizer, meta_optimizer, *streams, **options)


def train_conditional() -> tuple[torch.Tensor, torch.Tensor, str]:
    """A healthy run; and one in which a meta loss fails in every process, is caught, and the training goes on."""
    loop = conditional(dist.group.WORLD)
    for _ in range(4):
        loop.step()
    spoiled = conditional(dist.group.WORLD)
    spoiled.step()
    original = spoiled.program.meta_loss

    def fail(base, meta, batch):  # found out after the λ gradients are on their way
        return original(base, meta, batch) * float("nan")

    spoiled.program.meta_loss, message = fail, ""
    spoiled.program.base_loss = lambda base, meta, batch: (  # the base loss goes on
        original(base, meta, batch) + meta["decay"].exp() * base["heads.0.weight"].square().sum()
    )
    try:
        spoiled.step()
    except FloatingPointError as error:
        message = str(error)
    spoiled.program.meta_loss = original
    spoiled.step()
    teacher = loop.extra_state["teacher"]
    assert isinstance(teacher, TwoHeads)
    assert torch.equal(teacher.heads[2].weight, loop.base.get_parameter("heads.2.weight"))
    return values(loop), values(spoiled), message


def test_parameters_that_a_micro_batch_leaves_out_keep_the_gradient_of_the_others(tmp_path):
    """And one that no process uses is left alone, as in one process: no weight decay, no state."""
    alone = conditional()
    start = values(alone)
    for _ in range(4):
        alone.step()
    unused = slice(2 * 8, 3 * 8)
    for found, spoiled, message in run(2, train_conditional, tmp_path):
        torch.testing.assert_close(found, values(alone), rtol=1e-10, atol=1e-12)
        assert torch.equal(found[unused], start[unused])
        assert (found[: 2 * 8] - start[: 2 * 8]).abs().min() > 1e-3
        assert message.startswith("step 2: the meta loss is nan")
        assert spoiled.isfinite().all()


def reduce_other_layouts() -> list[tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]]:
    shapes = {"conv": (4, 3, 2, 5), "narrow": (4, 1, 3, 3), "scalar": ()}
    like = {name: torch.zeros(shape) for name, shape in shapes.items()}
    like = {n: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for n, t in like.items()}
    like["transposed"] = torch.zeros(3, 4).T
    mean = Mean(like, dist.group.WORLD)
    for name, tensor in like.items():  # what arrives is laid out otherwise
        mean.put(name, torch.arange(float(tensor.numel())).reshape(tensor.shape) + dist.get_rank())
    return [(value.clone(), value.stride(), like[name].stride()) for name, value in mean.take().items()]


def test_means_lie_in_memory_as_their_parameters_do(tmp_path):
    """Or a fused optimizer would mix up their elements."""
    for found in run(2, reduce_other_layouts, tmp_path):
        for value, stride, expected in found:
            assert torch.equal(value, torch.arange(float(value.numel())).reshape(value.shape) + 0.5)
            wide = [k for k, size in enumerate(value.shape) if size > 1]
            assert [stride[k] for k in wide] == [expected[k] for k in wide]


def reduce_twice() -> tuple[str, list[str], str]:
    mean = Mean({"a": torch.zeros(2), "b": torch.zeros(2)}, dist.group.WORLD)
    messages = []
    for names in (["a", "a"], ["a"]):
        try:
            for name in names:
                mean.put(name, torch.ones(2))
            mean.take()
        except ValueError as error:
            messages.append(str(error))
        mean.begin()
    some = Mean({"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}, dist.group.WORLD, partial=True)
    some.put("a", torch.ones(2))
    if dist.get_rank():
        some.put("b", torch.full((2,), 4.0))
    found = {name: value.tolist() for name, value in some.take().items()}
    return messages[0], messages[1:], str(found)


def test_what_does_not_arrive_or_arrives_twice(tmp_path):
    for twice, rest, found in run(2, reduce_twice, tmp_path):
        assert twice.startswith("the gradient of a came in two parts of one backward pass")
        assert "use_reentrant=False" in twice
        assert rest == ["expected a value of each name, got none of b"]
        assert found == str({"a": [1.0, 1.0], "b": [2.0, 2.0]})


class Watch(torch.autograd.Function):
    """The identity; its backward notes how many reductions have begun."""

    @staticmethod
    def forward(ctx, x, log, mean):
        ctx.log, ctx.mean = log, mean
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.log.append(len(ctx.mean._in_flight))
        return gradient, None, None


def overlap() -> tuple[list[int], list[tuple[str, int]], bool]:
    """Three layers, a bucket each: what has been sent when the backward of each layer begins."""
    rank = dist.get_rank()
    torch.manual_seed(rank)
    leaves = {f"layer {k}": torch.randn(8, 8, requires_grad=True) for k in range(3)}
    mean = Mean(leaves, dist.group.WORLD, bucket_bytes=8 * 8 * 4)  # a bucket a layer
    log: list[int] = []
    x = torch.randn(4, 8)
    for weight in leaves.values():
        x = Watch.apply(x @ weight, log, mean)
    with Traffic() as traffic:
        own = gradients(x.square().sum(), leaves, arrived=mean.put)
        averaged = mean.take()
    everyone: list = [None, None]
    dist.all_gather_object(everyone, own)
    same = all(torch.allclose(averaged[n], (everyone[0][n] + everyone[1][n]) / 2) for n in leaves)
    return log, traffic.calls, same


def test_reductions_run_while_the_backward_pass_goes_on(tmp_path):
    for log, calls, same in run(2, overlap, tmp_path):
        assert log == [0, 1, 2], "each layer's reduction begins before the next layer's backward"
        assert calls == [("allreduce_", 64)] * 3
        assert same


def resume(folder: Path, steps: int, stop: int | None) -> torch.Tensor:
    """Train `steps` steps; write a checkpoint after `stop` of them and go on from it in a new loop."""
    rank, group = dist.get_rank(), dist.group.WORLD
    world = {"world_size": dist.get_world_size(), "rank": rank, "group": group, "dropout": 0.3, "unroll_steps": 2}
    loop = make_loop("batch norm", **world)
    torch.manual_seed(100 + rank)
    for _ in range(stop or steps):
        loop.step()
    if stop is None:
        return values(loop)
    state = loop.state_dict()
    if rank == 0:
        checkpoint.save(folder / f"state{stop}.pt", state, "key")
    dist.barrier()
    again = make_loop("batch norm", **world)
    torch.manual_seed(999)
    state = checkpoint.load(folder / f"state{stop}.pt", "key")
    assert state is not None
    again.load_state_dict(state)
    for _ in range(steps - stop):
        again.step()
    return values(again)


def every_resume(folder: Path) -> list[torch.Tensor]:
    return [resume(folder, 4, stop) for stop in (None, 1, 2, 3)]


def test_resumed_equals_uninterrupted_in_each_process(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "checkpoints"
    store.mkdir(), folder.mkdir()
    for whole, *resumed in run(2, every_resume, store, folder):
        assert all(torch.equal(whole, other) for other in resumed)


def continue_with(folder: Path) -> tuple[torch.Tensor, list[int]]:
    world = {"world_size": dist.get_world_size(), "rank": dist.get_rank(), "group": dist.group.WORLD}
    loop = make_loop(**world)
    state = checkpoint.load(folder / "state.pt", "key")
    assert state is not None
    loop.load_state_dict(state)
    seen = loop.step().batches[0].indices.tolist()
    return values(loop), seen


def test_another_number_of_processes_goes_on_with_the_same_micro_batches(tmp_path):
    """2 micro-batches in one process, then in two: nothing random, and the base step is the same."""
    alone = make_loop(parts=2, unroll_steps=5)
    for _ in range(2):
        alone.step()
    checkpoint.save(tmp_path / "state.pt", alone.state_dict(), "key")
    store = tmp_path / "store"
    store.mkdir()
    found = run(2, continue_with, store, tmp_path)
    expected = alone.step()
    assert [f[1] for f in found] == [b.indices.tolist() for b in expected.batches]
    size = sum(p.numel() for p in alone.base.parameters())
    torch.testing.assert_close(found[0][0][:size], values(alone)[:size], rtol=1e-10, atol=1e-12)
    one = make_loop(parts=1)
    with pytest.raises(ValueError, match="has 2 micro-batches a step, this run has 1 processes"):
        one.load_state_dict(copy.deepcopy(alone.state_dict()))
