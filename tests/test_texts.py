"""Batches of texts: padding, buckets of similar length, masks."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sama.bilevel.batches import ShuffledBatches
from sama.texts import MaskedTexts, TextExamples, by_length

CPU = torch.device("cpu")
PAD, CLS, SEP, MASK, VOCABULARY = 0, 1, 2, 3, 50


def examples(count: int = 60, longest: int = 30, seed: int = 0) -> TextExamples:
    """Texts `[CLS] … [SEP]` of 1 to `longest` ordinary tokens, int32."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 2 + torch.randint(1, longest + 1, (count,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    tokens = torch.randint(4, VOCABULARY, (int(offsets[-1]),), generator=generator, dtype=torch.int32)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = CLS, SEP
    return TextExamples(tokens, offsets, torch.arange(count) % 3, PAD)


def text(data: TextExamples, row: int) -> list[int]:
    return data.tokens[data.offsets[row] : data.offsets[row + 1]].tolist()


def unpadded(inputs: dict[str, torch.Tensor]) -> list[list[int]]:
    ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
    assert ids.dtype == inputs["attention_mask"].dtype == torch.int64
    assert (ids[~mask] == PAD).all()
    assert (mask.int().diff(dim=1) <= 0).all()  # padding stands at the end
    assert mask.sum(1).max() == mask.shape[1]  # of the longest text there is none
    return [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_a_batch_is_padded_to_its_longest_text():
    data, rows = examples(), torch.tensor([7, 3, 3, 59])
    assert unpadded(data.begin(rows, CPU)()) == [text(data, row) for row in rows.tolist()]
    taken = data.take(rows)
    assert [text(taken, i) for i in range(4)] == [text(data, row) for row in rows.tolist()]
    assert torch.equal(taken.labels, data.labels[rows])
    assert torch.equal(taken.lengths, data.lengths[rows])
    assert taken.tokens.dtype == torch.int32


@pytest.mark.parametrize("world_size", [1, 3])
def test_all_texts_come_once_in_order_of_length(world_size):
    data, found = examples(), {}
    for rank in range(world_size):
        for number, (indices, inputs) in enumerate(data.batches(7, CPU, rank=rank, world_size=world_size)):
            found[number * world_size + rank] = indices
            assert unpadded(inputs) == [text(data, row) for row in indices.tolist()]
        rest = [i for i, _ in data.batches(7, CPU, rank=rank, world_size=world_size, skip=2)]
        assert torch.equal(torch.cat(rest), torch.cat([found[i] for i in sorted(found) if i % world_size == rank][2:]))
    order = torch.cat([found[i] for i in sorted(found)])
    assert sorted(order.tolist()) == list(range(60))
    assert (data.lengths[order].diff() <= 0).all()


def test_what_is_no_list_of_texts_is_refused():
    data = examples(4)
    with pytest.raises(ValueError, match="expected 3 offsets, one more than labels, got 5"):
        TextExamples(data.tokens, data.offsets, data.labels[:2], PAD)
    with pytest.raises(ValueError, match="expected offsets from 0 to 3, the number of tokens, got 0 to"):
        TextExamples(data.tokens[:3], data.offsets, data.labels, PAD)
    with pytest.raises(ValueError, match="at least one token a text, text 1 has none"):
        TextExamples(data.tokens[:3], torch.tensor([0, 2, 2, 3]), data.labels[:3], PAD)
    with pytest.raises(ValueError, match="batch_size and window >= 1, got 8 and 0"):
        by_length(data.lengths, 8, 0)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 8), st.integers(1, 4), st.integers(0, 99))
def test_buckets_rearrange_whole_batches(count, batch_size, offset, window, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths, drawn = torch.randint(1, 20, (count,), generator=generator), torch.randperm(count, generator=generator)
    order = by_length(lengths, batch_size, window)
    found = order(drawn, offset)
    assert sorted(found.tolist()) == list(range(count))
    assert torch.equal(found[:offset], drawn[:offset])
    assert torch.equal(order(drawn, offset), found)
    size = max(1, min(window, count // batch_size // 4)) * batch_size
    for start in range(offset, count - count % size, size):  # texts stay in their window
        if start + size <= count:
            part = found[start : start + size]
            assert sorted(part.tolist()) == sorted(drawn[start : start + size].tolist())
            blocks = sorted(lengths[block].tolist() for block in part.view(-1, batch_size))
            assert [n for block in blocks for n in block] == sorted(lengths[part].tolist())


def test_buckets_leave_little_padding_and_the_order_of_lengths_to_chance():
    data = examples(800, 60)
    order = by_length(data.lengths, 8, window=25)

    def lengths(order):
        batches = ShuffledBatches(len(data), 8, 0, lambda i, g: data.lengths[i], order=order)
        return torch.stack([next(batches) for _ in range(100)])

    def padding(found):
        return 1 - found.sum() / (found.amax(1) * 8).sum()

    assert padding(lengths(order)) < 0.06 < 0.35 < padding(lengths(None))
    longest = lengths(order).amax(1).float()
    place = torch.arange(25.0).repeat(4)
    assert torch.corrcoef(torch.stack([place, longest]))[0, 1].abs() < 0.3
    first, second = (order(torch.randperm(800, generator=torch.Generator().manual_seed(s)), 0) for s in (0, 1))
    assert {frozenset(b.tolist()) for b in first.view(-1, 8)} != {frozenset(b.tolist()) for b in second.view(-1, 8)}


@pytest.mark.parametrize(("count", "batch_size"), [(250, 32), (600, 32), (1600, 32), (400, 8)])
def test_texts_that_share_a_batch_part_in_the_next_epoch(count, batch_size):
    data = examples(count, 60)
    batches = ShuffledBatches(count, batch_size, 0, lambda rows, _: rows, order=data.order(batch_size))
    each = count // batch_size

    def pairs():
        batch = torch.full((count,), -1)
        for number in range(each):
            batch[next(batches)] = number
        return (batch[:, None] == batch) & (batch >= 0) & ~torch.eye(count, dtype=torch.bool)

    epochs = [pairs() for _ in range(6)]
    again = [(a & b).sum() / a.sum() for a, b in pairwise(epochs)]
    assert sum(again) / len(again) < 0.25


def masked(data: TextExamples, probability: float = 0.15) -> MaskedTexts:
    return MaskedTexts(data, MASK, VOCABULARY, (PAD, CLS, SEP, MASK), probability)


def test_masks_are_of_ordinary_tokens_and_say_what_stood_there():
    data, generator = examples(2000, 40), torch.Generator().manual_seed(1)
    inputs = masked(data).begin(torch.arange(2000), CPU, None, generator)()
    ids, positions, labels = inputs["input_ids"], inputs["masked_positions"], inputs["masked_labels"]
    original, mask = data.padded(torch.arange(2000))
    assert torch.equal(inputs["attention_mask"], mask)
    holds = labels != -100
    assert torch.equal(original.gather(1, positions)[holds], labels[holds])
    assert (positions[~holds] == 0).all()
    assert (labels[holds] >= 4).all()  # no special token
    assert holds.sum(1).min() == 1
    assert holds.sum(1).max() == holds.shape[1]  # k is no larger than it must be
    where = torch.zeros_like(ids).scatter_add(1, positions, holds.long())
    assert where.max() == 1  # no position twice
    assert torch.equal(ids[where == 0], original[where == 0])
    long = data.lengths > 30
    assert holds[long].sum() / (data.lengths[long] - 2).sum() == pytest.approx(0.15, abs=0.01)
    shown, truth = ids[where == 1], original[where == 1]
    assert (shown == MASK).float().mean() == pytest.approx(0.8, abs=0.02)
    kept = (shown == truth).float().mean()
    assert kept == pytest.approx(0.1 + 0.1 / 46, abs=0.02)
    assert (shown[shown != MASK] >= 4).all()
    assert set(range(4, VOCABULARY)) <= set(shown.tolist())


def test_masks_are_the_generators():
    data = masked(examples())
    first, again, other = (
        data.begin(torch.arange(60), CPU, None, torch.Generator().manual_seed(seed))() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["input_ids"], other["input_ids"])
    with pytest.raises(ValueError, match="expected a generator"):
        data.begin(torch.arange(2), CPU)


def test_a_text_of_special_tokens_alone_has_no_mask():
    data = TextExamples(torch.tensor([CLS, SEP, CLS, 9, SEP]), torch.tensor([0, 2, 5]), torch.zeros(2).long(), PAD)
    for rows in ([0], [0, 1]):
        inputs = masked(data, 1.0).begin(torch.tensor(rows), CPU, None, torch.Generator())()
        assert inputs["masked_labels"].tolist() == [[-100], [9]][: len(rows)]
        assert inputs["input_ids"][0, :2].tolist() == [CLS, SEP]
    with pytest.raises(ValueError, match=r"probability of masking in \(0, 1\], got 0"):
        masked(data, 0)
    with pytest.raises(ValueError, match="expected ordinary tokens, got 2 ids that are all special"):
        MaskedTexts(data, 1, 2, (0, 1))
