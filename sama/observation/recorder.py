"""Records training dynamics from the forwards that training makes anyway."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


class Recorder:
    """Called with (indices [batch], logits [batch, classes]) of every training batch; keeps float32 [visits, n].

    Row t has the t-th presentation of each example: `probability` `p_y`, `margin` `z_y − max_{c≠y} z_c`, `divergence`
    `KL(p_t ‖ p_{t−1})` (NaN at the first). For the divergence the last prediction of every example is kept, 4 bytes a
    class: with a million examples of a thousand classes 4 GB, so it can be left out. It is a hook for
    `sama.training.train(observe=…)`; its state goes into a checkpoint.

    Args:
        labels: int64 [n], observed.
        classes: number of classes, at least two.
        visits: whole permutations of the examples that training will make; later presentations are ignored.
        divergence: record it.

    Raises:
        ValueError: there is not one whole permutation, or not two classes.
    """

    def __init__(self, labels: Tensor, classes: int, visits: int, divergence: bool = True) -> None:
        if visits < 1:
            raise ValueError("expected the observed training to see every example at least once: observe more steps")
        if classes < 2:
            raise ValueError(f"expected at least two classes, got {classes}")
        self.labels = labels
        self.seen = torch.zeros(len(labels), dtype=torch.int64)
        names = ("probability", "margin", "divergence") if divergence else ("probability", "margin")
        self.records = {name: torch.full((visits, len(labels)), torch.nan) for name in names}
        self._visits = visits
        self._last = torch.full((len(labels), classes), torch.nan) if divergence else torch.empty(0)  # ln p

    @torch.no_grad()
    def __call__(self, indices: Tensor, logits: Tensor) -> None:
        """Add a batch."""
        log_p = log_softmax(logits.detach().float().cpu(), dim=-1)
        for places in _presentations(indices):
            self._add(indices[places], log_p[places])

    def _add(self, indices: Tensor, log_p: Tensor) -> None:
        inside = self.seen[indices] < self._visits
        indices, log_p = indices[inside], log_p[inside]
        visit, mine = self.seen[indices], self.labels[indices, None]
        observed = log_p.gather(1, mine)[:, 0]
        others = log_p.scatter(1, mine, -torch.inf).amax(dim=1)
        self.records["probability"][visit, indices] = observed.exp()
        self.records["margin"][visit, indices] = observed - others  # ln p and the logits differ by a constant
        if "divergence" in self.records:
            divergence = (log_p.exp() * (log_p - self._last[indices])).sum(dim=1)
            self.records["divergence"][visit, indices] = divergence
            self._last[indices] = log_p
        self.seen[indices] += 1

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {name: value.clone() for name, value in self._tensors().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state` was taken.

        Raises:
            ValueError: it was taken from a recorder of other examples, classes or visits.
        """
        for name, mine in self._tensors().items():
            if name not in state or state[name].shape != mine.shape:
                got = list(state[name].shape) if name in state else "none"
                raise ValueError(
                    f"the recorder's state has {name} of shape {got}, expected {list(mine.shape)}: it belongs to"
                    " another run"
                )
        for name, mine in self._tensors().items():
            mine.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        return {"seen": self.seen, "last": self._last, **self.records}


def _presentations(indices: Tensor) -> Iterator[Tensor]:
    """Places of the batch, parted so that no part has an example twice: a batch may span two permutations."""
    order = indices.argsort(stable=True)
    in_order = indices[order]
    place = torch.arange(len(indices))
    fresh = torch.ones(len(indices), dtype=torch.bool)
    fresh[1:] = in_order[1:] != in_order[:-1]
    repeat = place - torch.where(fresh, place, 0).cummax(dim=0).values  # 0 for the first of equal indices, then 1, 2, …
    for count in range(int(repeat.max()) + 1 if len(indices) else 0):
        yield order[repeat == count]
