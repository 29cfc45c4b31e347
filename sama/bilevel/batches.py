"""Endless shuffled batches that can be continued where they were interrupted."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class ShuffledBatches:
    """Batches of one random permutation of `examples` after another, seeded, each of exactly `batch_size`.

    A batch that a permutation cannot fill is filled from the next one. `make` turns the indices [batch_size] and the
    generator (for augmentation) into a batch.

    Raises:
        ValueError: there are no examples.
    """

    def __init__(
        self, examples: int, batch_size: int, seed: int, make: Callable[[Tensor, torch.Generator], Any]
    ) -> None:
        if examples < 1:
            raise ValueError("expected at least one example to draw batches from, got none")
        self.examples, self.batch_size, self.make = examples, batch_size, make
        self.generator = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> "ShuffledBatches":
        return self

    def __next__(self) -> Any:
        """The next batch."""
        while len(self._order) < self.batch_size:
            self._order = torch.cat([self._order, torch.randperm(self.examples, generator=self.generator)])
        indices, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        return self.make(indices, self.generator)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        return {"order": self._order.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._order = state["order"].clone()
        self.generator.set_state(state["generator"])
