"""Gradient accumulation on both levels, and clipping, against steps written out."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sama.adaptation import adapt
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient import METHODS, DifferentiableUpdate, MicroBatches, method
from sama.networks.meta_weight import MetaWeightNetwork, normalize_by_mean
from sama.programs.reweight import LabelledBatch, Reweight

OPTIONS = {"exact": {"regularization": 0.01}, "itd": {"inner_steps": 2}}
KINDS = [(name, OPTIONS.get(name, {})) for name in METHODS] + [
    ("sama", {"difference": "one_sided"}),
    ("sama", {"difference": "exact"}),
    ("darts", {"difference": "one_sided"}),
]


class Plain:
    """The same losses without the weighting form, so that the methods differentiate them whole."""

    def __init__(self, program: Reweight) -> None:
        self.buffers, self.base_loss, self.meta_loss = program.buffers, program.base_loss, program.meta_loss


def make_loop(name="sama", options=None, *, parts: int, plain=False, normalize=False, rate=0.1, **knobs) -> BilevelLoop:
    """A loop whose step takes 16 base and 8 meta examples in `parts` micro-batches."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    network = MetaWeightNetwork(1, 6).double()
    nn.init.normal_(network.output.weight)
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=normalize)

    def batch(indices, _):
        return LabelledBatch(inputs[indices], labels[indices], indices)

    return BilevelLoop(
        Plain(program) if plain else program,
        model,
        network,
        torch.optim.AdamW(model.parameters(), lr=rate, eps=1e-2),
        torch.optim.SGD(network.parameters(), lr=2.0, momentum=0.5),
        ShuffledBatches(32, 16 // parts, 1, batch),
        ShuffledBatches(32, 8 // parts, 2, batch),
        method=name,
        alpha=0.01,
        unroll_steps=2,
        options=options,
        accumulate=parts,
        meta_accumulate=parts,
        **knobs,
    )


def values(loop: BilevelLoop) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for m in (loop.base, loop.meta) for p in m.parameters()])


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("name", "options"), KINDS)
def test_micro_batches_take_the_step_of_their_batch(name, options, plain):
    """Where a loss is a mean over examples, parts and whole agree."""
    whole, split = (make_loop(name, options, parts=k, plain=plain) for k in (1, 2))
    start = values(whole)
    for _ in range(4):
        one, other = whole.step(), split.step()
        torch.testing.assert_close(one.base_loss, other.base_loss, rtol=1e-12, atol=0)
        assert len(other.batches) == 2
        if one.meta_loss is not None:
            torch.testing.assert_close(one.meta_loss, other.meta_loss, rtol=1e-12, atol=0)
    # one-sided differences of sums are rounded at 1e-16/ε
    torch.testing.assert_close(values(whole) - start, values(split) - start, rtol=1e-8, atol=1e-11)
    assert all(p.grad is None for m in (split.base, split.meta) for p in m.parameters())


def test_weights_are_normalised_over_their_micro_batch():
    loop = make_loop(parts=2, normalize=True)
    theta, lam = dict(loop.base.named_parameters()), dict(loop.meta.named_parameters())
    before = {name: p.detach().clone() for name, p in theta.items()}
    start = copy.deepcopy(loop.base)
    result = loop.step()
    by_hand = torch.zeros((), dtype=torch.float64)
    all_losses, all_raw = [], []
    for batch, weighting in zip(result.batches, result.weightings, strict=True):
        losses = cross_entropy(start(batch.inputs), batch.labels, reduction="none")
        raw = torch.func.functional_call(loop.meta, {**lam}, (losses.detach()[:, None],)).detach()
        torch.testing.assert_close(weighting.weights, raw / raw.mean())
        assert weighting.weights.mean().item() == pytest.approx(1.0)
        by_hand = by_hand + (raw / raw.mean() * losses).mean() / 2
        all_losses.append(losses.detach())
        all_raw.append(raw)
    torch.testing.assert_close(result.base_loss, by_hand.detach())
    of_all = (normalize_by_mean(torch.cat(all_raw)) * torch.cat(all_losses)).mean()
    assert (of_all - by_hand).abs() > 1e-5, "the mean over all examples would be another loss"
    gradient = torch.autograd.grad(by_hand, list(start.parameters()))
    twin = copy.deepcopy(start)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.1, eps=1e-2)
    for p, g in zip(twin.parameters(), gradient, strict=True):
        p.grad = g
    optimizer.step()
    for name, p in twin.named_parameters():
        torch.testing.assert_close(theta[name], p)
        assert not torch.equal(p, before[name])


@pytest.mark.parametrize("name", ["sama", "sama_na", "itd"])
def test_clipped_steps_are_those_written_out(name):
    """The optimizer sees the clipped gradient, and the adaptation the factor."""
    loop, by_hand = (make_loop(name, parts=1, clip_norm=0.05, meta_clip_norm=1e-3) for _ in range(2))
    theta, lam = dict(by_hand.base.named_parameters()), dict(by_hand.meta.named_parameters())
    program, optimizer, meta_optimizer = by_hand.program, by_hand.base_optimizer, by_hand.meta_optimizer
    clipped = {"base": 0, "meta": 0}

    def clip(gradients, norm, level):
        length = torch.cat([g.flatten() for g in gradients]).norm()
        factor = min(1.0, norm / (length.item() + 1e-6))
        clipped[level] += factor < 1
        return [g * factor for g in gradients], factor

    for step in range(1, 5):
        batch = next(by_hand.batches)
        raw = torch.autograd.grad(program.base_loss(theta, lam, batch), list(theta.values()))
        seen, factor = clip(raw, 0.05, "base")
        for p, g in zip(theta.values(), seen, strict=True):
            p.grad = g
        optimizer.step()
        if step % 2 == 0:
            last = dict(zip(theta, seen, strict=True))
            found = method(name)(
                program,
                theta,
                lam,
                batch,
                next(by_hand.meta_batches),
                adapt=lambda x, last=last, factor=factor: {
                    n: factor * d for n, d in adapt(optimizer, theta, last, x).items()
                },
                update=DifferentiableUpdate(optimizer, theta),
                alpha=0.01,
            )
            gradients, _ = clip(list(found.gradient.values()), 1e-3, "meta")
            for p, g in zip(lam.values(), gradients, strict=True):
                p.grad = g
            meta_optimizer.step()
        loop.step()
        torch.testing.assert_close(values(loop), values(by_hand), rtol=1e-10, atol=1e-12)
    assert clipped["base"] == 4
    assert clipped["meta"] >= 1


@pytest.mark.parametrize("plain", [False, True])
def test_each_micro_batch_has_masks_of_its_own_the_same_for_both_signs(plain):
    loop = make_loop(parts=2, plain=plain)
    draws, watched = [], "base_loss" if plain else "example_losses"
    original = getattr(loop.program, watched)

    def watch(*arguments):
        draws.append(torch.rand(()).item())
        return original(*arguments)

    setattr(loop.program, watched, watch)
    theta, lam = dict(loop.base.named_parameters()), dict(loop.meta.named_parameters())
    batches, meta_batches = (
        MicroBatches(next(stream) for _ in range(2)) for stream in (loop.batches, loop.meta_batches)
    )
    method("sama_na", alpha=0.01)(loop.program, theta, lam, batches, meta_batches)
    plus, minus, plus_of_second, minus_of_second = draws
    assert plus == minus != plus_of_second == minus_of_second


def test_a_large_norm_clips_nothing():
    free, clipped = make_loop(parts=1), make_loop(parts=1, clip_norm=1e6, meta_clip_norm=1e6)
    for _ in range(2):
        free.step(), clipped.step()
    assert torch.equal(values(free), values(clipped))


@pytest.mark.parametrize(
    ("knob", "value"), [("accumulate", 0), ("meta_accumulate", 0), ("clip_norm", 0.0), ("meta_clip_norm", -1.0)]
)
def test_a_number_out_of_range_is_named(knob, value):
    loop = make_loop(parts=1)
    with pytest.raises(ValueError, match=f"expected {knob} (to be an integer )?>=? [01], got {value}"):
        BilevelLoop(
            loop.program,
            loop.base,
            loop.meta,
            loop.base_optimizer,
            loop.meta_optimizer,
            loop.batches,
            loop.meta_batches,
            method="sama",
            alpha=0.1,
            unroll_steps=1,
            **{knob: value},
        )


def test_a_checkpoint_of_other_micro_batches_is_refused():
    state = make_loop(parts=2).state_dict()
    with pytest.raises(ValueError, match=r"has 2 micro-batches a step, this run has 1 processes × 1: set accumulate"):
        make_loop(parts=1).load_state_dict(state)
    other = make_loop(parts=2)
    other.batches = ShuffledBatches(32, 4, 1, lambda i, _: i)
    with pytest.raises(ValueError, match="batches have batch_size 8, expected 4"):
        other.load_state_dict(state)


def test_batches_are_dealt_to_the_processes_in_turn():
    def make(indices, generator):
        return indices.tolist(), torch.rand(2, generator=generator).tolist()

    alone = ShuffledBatches(10, 3, 5, make)
    stream = [next(alone) for _ in range(8)]
    dealt = [ShuffledBatches(10, 3, 5, make, rank=r, world_size=2) for r in range(2)]
    assert [next(dealt[k % 2]) for k in range(4)] == stream[:4]
    state = dealt[1].state_dict()
    assert state["drawn"] == dealt[0].state_dict()["drawn"] == 4
    later = [ShuffledBatches(10, 3, 5, make, rank=r, world_size=4) for r in range(4)]
    for batches in later:
        batches.load_state_dict(state)
    assert [next(batches) for batches in later] == stream[4:]
    with pytest.raises(ValueError, match=r"rank in 0\.\.1, got 2"):
        ShuffledBatches(10, 3, 5, make, rank=2, world_size=2)


def test_a_batch_larger_than_the_examples_takes_several_permutations():
    batches = ShuffledBatches(3, 8, 0, lambda indices, _: indices.tolist())
    seen = [next(batches) for _ in range(3)]
    assert [len(batch) for batch in seen] == [8, 8, 8]
    order = [index for batch in seen for index in batch]
    assert all(sorted(order[start : start + 3]) == [0, 1, 2] for start in range(0, 24, 3))


@pytest.mark.parametrize("ahead", [1, 3, 7])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_begun_early_are_the_same_and_continue_where_they_were_used(ahead, world_size):
    begun: list[int] = []

    def make(indices, generator):
        return indices.tolist(), torch.rand(2, generator=generator).tolist()

    def begin(indices, generator):
        begun.append(len(begun))
        return lambda: make(indices, generator)

    plain = ShuffledBatches(10, 3, 5, make, world_size=world_size)
    stream = [next(plain) for _ in range(12)]
    early = ShuffledBatches(10, 3, 5, begin, world_size=world_size, ahead=ahead)
    assert [next(early) for _ in range(4)] == stream[:4]
    assert len(begun) == 4 + ahead
    states = [early.state_dict() for _ in range(2)]
    plainly = ShuffledBatches(10, 3, 5, make, world_size=world_size)
    plainly.load_state_dict(states[0])
    assert [next(plainly) for _ in range(8)] == stream[4:]
    early.load_state_dict(states[1])  # what was begun before is forgotten
    assert [next(early) for _ in range(8)] == stream[4:]
    assert plainly.state_dict()["drawn"] == early.state_dict()["drawn"] == 12 * world_size
