"""The order of shuffled batches: every example once an epoch, aligned, and the same stream after an interruption."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sama.bilevel.batches import ShuffledBatches

LENGTHS = torch.randint(1, 60, (103,), generator=torch.Generator().manual_seed(0))


def sorted_blocks(batch_size: int):
    """An order that only alignment makes right: whole batches, each sorted by length."""

    def order(permutation, offset):
        body = permutation[offset : offset + (len(permutation) - offset) // batch_size * batch_size]
        ranked = body[LENGTHS[body].argsort(stable=True)]
        return torch.cat([permutation[:offset], ranked, permutation[offset + len(body) :]])

    return order


def stream(order=None, **options) -> ShuffledBatches:
    def make(indices, generator):
        made = (indices, torch.rand(2, generator=generator))
        return (lambda: made) if options.get("ahead") else made

    return ShuffledBatches(len(LENGTHS), 8, 5, make, order=order, **options)


def test_without_an_order_nothing_changes():
    generator = torch.Generator().manual_seed(5)
    drawn = torch.cat([torch.randperm(len(LENGTHS), generator=generator) for _ in range(2)])
    plain = stream()
    assert torch.equal(torch.cat([next(plain)[0] for _ in range(25)]), drawn[:200])


def test_the_order_is_told_what_completes_the_batch_that_is_begun():
    offsets = []

    def order(permutation, offset):
        offsets.append(offset)
        assert len(permutation) == len(LENGTHS)
        return permutation

    batches, plain = stream(order), stream()
    assert all(torch.equal(next(batches)[0], next(plain)[0]) for _ in range(50))
    assert offsets == [0, 1, 2, 3]  # 103 = 13 · 8 − 1


@given(st.integers(1, 4), st.sampled_from([0, 2]))
def test_processes_share_the_ordered_stream(world_size, ahead):
    whole = stream(sorted_blocks(8))
    expected = [next(whole)[0] for _ in range(24)]
    shares = [stream(sorted_blocks(8), rank=r, world_size=world_size, ahead=ahead) for r in range(world_size)]
    dealt = [next(shares[i % world_size])[0] for i in range(24)]
    assert all(torch.equal(a, b) for a, b in zip(dealt, expected, strict=True))
    assert sorted(torch.cat(dealt)[: len(LENGTHS)].tolist()) == list(range(len(LENGTHS)))
    lengths = LENGTHS[torch.stack(dealt)]
    aligned = (lengths.diff(dim=1) >= 0).all(dim=1)
    assert aligned.tolist() == [i != 12 for i in range(24)]  # two permutations share batch 12


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("interrupted_after", [1, 11, 12, 13, 14])
def test_resumed_equals_uninterrupted(ahead, interrupted_after):
    whole, first, second = (stream(sorted_blocks(8), ahead=ahead) for _ in range(3))
    expected = [next(whole) for _ in range(40)]
    for _ in range(interrupted_after):
        next(first)
    second.load_state_dict(first.state_dict())
    for indices, noise in expected[interrupted_after:]:
        found = next(second)
        assert torch.equal(found[0], indices)
        assert torch.equal(found[1], noise)
