"""Endless shuffled batches that can be continued where they were interrupted."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class ShuffledBatches:
    """Batches of one random permutation of `examples` after another, seeded, each of exactly `batch_size`.

    A batch that a permutation cannot fill is filled from the next one. `make` turns the indices [batch_size] and a
    generator of this batch's own (for augmentation) into a batch. With several processes they are dealt the batches of
    the one stream in turn: process r of R gets batches r, R + r, 2R + r, … of it, whatever R is.

    `order` may rearrange each permutation, so that what belongs together (texts of one length) comes in one batch of
    one process. Batches that several processes take at one time need not be alike: if they were, the stream would
    depend on R, and a step's gradient would come from one kind of example.

    Args:
        examples, batch_size, seed, make: as above.
        order: (permutation [examples], how many of its first indices complete the batch that the permutation before it
            began) -> the same indices in the order in which they are dealt; None: as they were drawn.
        rank, world_size: this process, and how many there are.
        ahead: so many batches are begun before their turn: `make` then returns a function that finishes the batch. The
            batches are the same for any number.

    Raises:
        ValueError: there are no examples, no batch, or no such rank.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        seed: int,
        make: Callable[[Tensor, torch.Generator], Any],
        *,
        order: Callable[[Tensor, int], Tensor] | None = None,
        rank: int = 0,
        world_size: int = 1,
        ahead: int = 0,
    ) -> None:
        if examples < 1:
            raise ValueError("expected at least one example to draw batches from, got none")
        if batch_size < 1:
            raise ValueError(f"expected a batch_size >= 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank in 0..{world_size - 1}, got {rank}")
        self.examples, self.batch_size, self.seed, self.make = examples, batch_size, seed, make
        self.order = order
        self.rank, self.world_size, self.ahead = rank, world_size, ahead
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._drawn = 0  # batches of the stream that are dealt, to whichever process
        self._begun: deque[tuple[Tensor, Any]] = deque()  # what was dealt to all processes, and what `make` gave

    def __iter__(self) -> "ShuffledBatches":
        return self

    def __next__(self) -> Any:
        """This process's next batch."""
        while len(self._begun) <= self.ahead:
            self._deal()
        _, made = self._begun.popleft()
        return made() if self.ahead else made

    def _deal(self) -> None:
        """Take the next batches, one a process, off the stream, and begin this process's own."""
        size = self.world_size * self.batch_size
        while len(self._order) < size:
            self._order = torch.cat([self._order, self._permutation()])
        dealt, self._order = self._order[:size], self._order[size:]
        number, self._drawn = self._drawn + self.rank, self._drawn + self.world_size
        seed = random.Random(f"{self.seed}/{number}").getrandbits(63)
        mine = dealt[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
        self._begun.append((dealt, self.make(mine, torch.Generator().manual_seed(seed))))

    def _permutation(self) -> Tensor:
        drawn = torch.randperm(self.examples, generator=self._generator)
        return drawn if self.order is None else self.order(drawn, -len(self._order) % self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands; the same in every process. Batches that are only begun are still to come."""
        return {
            "examples": self.examples,
            "batch_size": self.batch_size,
            "order": torch.cat([*(dealt for dealt, _ in self._begun), self._order]),
            "generator": self._generator.get_state(),
            "drawn": self._drawn - self.world_size * len(self._begun),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken, with however many processes.

        Raises:
            ValueError: it was taken from a stream of other examples or batches.
        """
        for name in ("examples", "batch_size"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the checkpoint's batches have {name} {state[name]}, expected {getattr(self, name)} as now: "
                    "it belongs to another run"
                )
        self._begun.clear()
        self._order, self._drawn = state["order"].clone(), state["drawn"]
        self._generator.set_state(state["generator"])
