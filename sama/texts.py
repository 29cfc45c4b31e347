"""Tokenised texts as training examples: padded batches, batches of similar length, masked tokens."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MASKED, REPLACED = 0.8, 0.1  # of the chosen tokens; the others stay (Devlin et al., NAACL 2019, section 3.1)
NO_LABEL = -100  # what `torch.nn.functional.cross_entropy` leaves out


@dataclass(frozen=True)
class TextExamples:
    """n tokenised texts and their labels.

    Args:
        tokens: ids of all texts, one after another, int32 or int64 [total].
        offsets: text i is `tokens[offsets[i]:offsets[i + 1]]`, int64 [n + 1].
        labels: int64 [n], or class probabilities, float [n, classes].
        pad_id: what shorter texts of a batch are filled up with.

    Raises:
        ValueError: the offsets do not divide the tokens into as many texts as there are labels, or a text is empty.
    """

    tokens: Tensor
    offsets: Tensor
    labels: Tensor
    pad_id: int

    ahead = 2  # batches that are begun before their turn

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.labels) + 1:
            raise ValueError(f"expected {len(self.labels) + 1} offsets, one more than labels, got {len(self.offsets)}")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens):
            raise ValueError(
                f"expected offsets from 0 to {len(self.tokens)}, the number of tokens, got {int(self.offsets[0])} to "
                f"{int(self.offsets[-1])}"
            )
        if (self.lengths < 1).any():
            raise ValueError(f"expected at least one token a text, text {int(self.lengths.argmin())} has none")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> Tensor:
        """Number of tokens of each text, int64 [n]."""
        return self.offsets.diff()

    def order(self, batch_size: int) -> Callable[[Tensor, int], Tensor]:
        """Batches of similar length: `by_length`."""
        return by_length(self.lengths, batch_size)

    def take(self, rows: Tensor) -> "TextExamples":
        """The texts at these positions, in this order."""
        lengths = self.lengths[rows]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        within = torch.arange(int(offsets[-1])) - offsets[:-1].repeat_interleave(lengths)
        tokens = self.tokens[self.offsets[rows].repeat_interleave(lengths) + within]
        return TextExamples(tokens, offsets, self.labels[rows], self.pad_id)

    def padded(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Ids int64 and mask (1: a token, 0: padding) int64 of these texts, both [batch, longest of them]."""
        lengths = self.lengths[indices]
        columns = torch.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        ids = torch.full(mask.shape, self.pad_id, dtype=torch.int64)
        ids[mask] = self.tokens[(self.offsets[indices][:, None] + columns)[mask]].long()
        return ids, mask.long()

    def begin(
        self,
        indices: Tensor,
        device: torch.device,
        recipe: object = None,
        generator: torch.Generator | None = None,
    ) -> Callable[[], dict[str, Tensor]]:
        """A function that gives `input_ids` and `attention_mask` of these texts, int64 [batch, longest], on `device`.

        Texts know no random changes: `recipe` and `generator` are there because images do.
        """

        def inputs() -> dict[str, Tensor]:
            ids, mask = self.padded(indices)
            return _moved({"input_ids": ids, "attention_mask": mask}, device)

        return inputs

    def batches(
        self, batch_size: int, device: torch.device, *, rank: int = 0, world_size: int = 1, skip: int = 0
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """(indices, inputs) of all texts once, `batch_size` at a time, from the longest to the shortest.

        So there is little padding, and too large a batch is found at once. With several processes, process r of R gets
        batches r, R + r, …, without the first `skip` of them.
        """
        order = self.lengths.argsort(descending=True, stable=True)
        for indices in order.split(batch_size)[rank::world_size][skip:]:
            yield indices, self.begin(indices, device)()


@dataclass(frozen=True)
class MaskedTexts:
    """The same texts for masked language modelling (Devlin et al., NAACL 2019), with new masks in every batch.

    Each ordinary token is chosen with `probability`, and at least one a text that has any; of the chosen ones 80 %
    become the mask token, 10 % a random ordinary token, and 10 % stay.

    Args:
        texts: what is masked; their labels are not used.
        mask_id: id of the mask token.
        vocabulary_size: ids are below it.
        special_ids: ids of the tokens that are neither chosen nor drawn.
        probability: as above, in (0, 1].

    Raises:
        ValueError: the probability is out of range, or there is no ordinary token.
    """

    texts: TextExamples
    mask_id: int
    vocabulary_size: int
    special_ids: tuple[int, ...]
    probability: float = 0.15

    ahead = TextExamples.ahead

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1:
            raise ValueError(f"expected a probability of masking in (0, 1], got {self.probability}")
        if not len(self._ordinary):
            raise ValueError(f"expected ordinary tokens, got {self.vocabulary_size} ids that are all special")

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def labels(self) -> Tensor:
        """Those of the texts."""
        return self.texts.labels

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each text, int64 [n]."""
        return self.texts.lengths

    def order(self, batch_size: int) -> Callable[[Tensor, int], Tensor]:
        """As the texts'."""
        return self.texts.order(batch_size)

    @cached_property
    def _ordinary(self) -> Tensor:
        ids = torch.arange(self.vocabulary_size)
        return ids[~torch.isin(ids, torch.tensor(self.special_ids, dtype=torch.int64))]

    def begin(
        self,
        indices: Tensor,
        device: torch.device,
        recipe: object = None,
        generator: torch.Generator | None = None,
    ) -> Callable[[], dict[str, Tensor]]:
        """Draw the masks of a batch from its generator.

        Returns:
            A function that gives, on `device` and int64: `input_ids` and `attention_mask` [batch, longest];
            `masked_positions` [batch, k], columns of the chosen tokens, filled up with 0; `masked_labels` [batch, k],
            what stood there, filled up with −100. k is the largest number of chosen tokens a text, at least 1.

        Raises:
            ValueError: no generator.
        """
        if generator is None:
            raise ValueError("masks are drawn at random: expected a generator, got None")
        return lambda: _moved(self._masked(indices, generator), device)

    def _masked(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        ids, mask = self.texts.padded(indices)
        ordinary = mask.bool() & ~torch.isin(ids, torch.tensor(self.special_ids, dtype=torch.int64))
        draws = torch.rand(ids.shape, generator=generator).masked_fill(~ordinary, 2.0)
        chosen = ordinary & ((draws < self.probability) | (draws == draws.amin(1, keepdim=True)))
        fate = torch.rand(ids.shape, generator=generator)
        drawn = self._ordinary[torch.randint(len(self._ordinary), ids.shape, generator=generator)]
        shown = torch.where(chosen & (fate < MASKED), self.mask_id, ids)
        shown = torch.where(chosen & (fate >= MASKED) & (fate < MASKED + REPLACED), drawn, shown)
        most = max(1, int(chosen.sum(1).max()))
        positions = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        holds = chosen.gather(1, positions)
        return {
            "input_ids": shown,
            "attention_mask": mask,
            "masked_positions": positions.masked_fill(~holds, 0),
            "masked_labels": ids.gather(1, positions).masked_fill(~holds, NO_LABEL),
        }


def by_length(lengths: Tensor, batch_size: int, window: int = 50) -> Callable[[Tensor, int], Tensor]:
    """An `order` of `ShuffledBatches` that puts texts of similar length into one batch.

    Of every `window` batches of the permutation the texts are sorted by length, cut into batches, and the batches
    shuffled; which texts share a batch, and when, is drawn anew with every permutation. The batch that two
    permutations share stays as it was drawn. A window has at most a quarter of an epoch's batches: the same texts
    sorted again would be almost the same batches again.

    Args:
        lengths: of the texts, [n].
        batch_size: of the stream.
        window: 1, as below 8 batches an epoch, changes nothing but the order within a batch; the more, the less
            padding, and the less random.

    Raises:
        ValueError: batch_size or window is below 1.
    """
    if batch_size < 1 or window < 1:
        raise ValueError(f"expected batch_size and window >= 1, got {batch_size} and {window}")

    width = max(1, min(window, len(lengths) // batch_size // 4))

    def order(permutation: Tensor, offset: int) -> Tensor:
        whole = max(0, len(permutation) - offset) // batch_size * batch_size
        head, body, tail = permutation[:offset], permutation[offset : offset + whole], permutation[offset + whole :]
        seed = random.Random(permutation.numpy().tobytes()).getrandbits(63)
        generator = torch.Generator().manual_seed(seed)
        found = [head]
        for part in body.split(width * batch_size):
            rows = part[lengths[part].argsort(stable=True)].view(-1, batch_size)
            found.append(rows[torch.randperm(len(rows), generator=generator)].flatten())
        return torch.cat([*found, tail])

    return order


def _moved(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
