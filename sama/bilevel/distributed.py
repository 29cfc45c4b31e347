"""Several processes: means over them, one reduction a bucket, while the backward pass that fills them still runs."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sama.hypergradient.evaluation import is_expanded

BUCKET_BYTES = 25 * 2**20


class Mean:
    """Means over the processes of named tensors that arrive one by one.

    The tensors are packed into buckets in reverse order of their names' (a backward pass ends with the first layer).
    A full bucket is reduced at once and without waiting, in the same order in every process. Serves one reduction after
    another: `put` each name, then `take` them all.

    Args:
        like: name -> tensor of the shape, dtype and device to come; the same in every process.
        group: the processes. bucket_bytes: size of a bucket, at least one tensor.
        partial: a name may not arrive; it counts as 0, and is not among the means if it arrives in no process. Costs
            one value a name. Without, each name arrives.
    """

    def __init__(
        self,
        like: Mapping[str, Tensor],
        group: dist.ProcessGroup,
        *,
        bucket_bytes: int = BUCKET_BYTES,
        partial: bool = False,
    ) -> None:
        self.group, self.partial, self._like = group, partial, dict(like)
        self._buckets: list[list[str]] = []
        last: tuple[torch.dtype, torch.device] | None = None
        room = 0
        for name in reversed(self._like):
            tensor = self._like[name]
            kind, size = (tensor.dtype, tensor.device), tensor.numel() * tensor.element_size()
            if kind != last or size > room:
                self._buckets.append([])
                last, room = kind, bucket_bytes
            self._buckets[-1].append(name)
            room -= size
        self.begin()

    def begin(self) -> None:
        """Forget what arrived: after `take`, or after an error, which has to be the error of all processes."""
        self._arrived: dict[str, Tensor] = {}
        self._names: set[str] = set()
        self._in_flight: list[tuple[Tensor, Any]] = []

    def __contains__(self, name: str) -> bool:
        """Whether the name arrived in this process."""
        return name in self._names

    def put(self, name: str, tensor: Tensor) -> None:
        """Add a tensor; starts the reduction of every bucket that is next and full.

        Raises:
            ValueError: the name arrived before; what came first may be on its way already.
        """
        if name in self._names:
            raise ValueError(
                f"the gradient of {name} came in two parts of one backward pass, which several processes cannot reduce:"
                " use torch.utils.checkpoint with use_reentrant=False"
            )
        self._names.add(name)
        self._arrived[name] = tensor.detach()
        while self._next_is_full():
            self._reduce()

    def _next_is_full(self) -> bool:
        k = len(self._in_flight)
        return k < len(self._buckets) and all(name in self._arrived for name in self._buckets[k])

    def _reduce(self) -> None:
        names = self._buckets[len(self._in_flight)]
        values = [self._arrived.pop(name, None) for name in names]
        pieces = [
            self._like[name].new_zeros(self._like[name].numel())
            if value is None
            else value.permute(_in_memory(self._like[name])).reshape(-1)
            for name, value in zip(names, values, strict=True)
        ]
        if self.partial:
            pieces.append(pieces[0].new_tensor([value is not None for value in values]))
        flat = torch.cat(pieces)
        flat.div_(self.group.size())  # before the sum, which half precision would overflow
        self._in_flight.append((flat, dist.all_reduce(flat, group=self.group, async_op=True)))

    def take(self) -> dict[str, Tensor]:
        """The means, name by name; waits for them.

        Raises:
            ValueError: a name did not arrive.
        """
        missing = [] if self.partial else [name for name in self._like if name not in self._names]
        if missing:
            raise ValueError(f"expected a value of each name, got none of {missing[0]}")
        while len(self._in_flight) < len(self._buckets):
            self._reduce()
        means: dict[str, Tensor] = {}
        for names, (flat, work) in zip(self._buckets, self._in_flight, strict=True):
            work.wait()
            sizes = [self._like[name].numel() for name in names]
            *pieces, told = flat.split([*sizes, len(flat) - sum(sizes)])
            anywhere = told.tolist() if self.partial else [1.0] * len(names)
            means |= {
                name: _unpacked(piece, self._like[name])
                for name, piece, share in zip(names, pieces, anywhere, strict=True)
                if share > 0
            }
        self.begin()
        return {name: means[name] for name in self._like if name in means}


def _in_memory(like: Tensor) -> list[int]:
    """The dimensions in the order in which they lie in memory."""
    return sorted(range(like.ndim), key=lambda d: (-like.stride(d), d))


def _unpacked(piece: Tensor, like: Tensor) -> Tensor:
    """A flat piece as a tensor of `like`'s shape and strides.

    torch's fused optimizers walk through the memory of parameter and gradient side by side: where one is channels-last
    and the other is not, they mix up elements, and say nothing.
    """
    order = _in_memory(like)
    shaped = piece.view([like.shape[d] for d in order])
    return shaped.permute([order.index(d) for d in range(like.ndim)])


@torch.no_grad()
def copy_from_first(tensors: Iterable[Tensor], group: dist.ProcessGroup) -> None:
    """Overwrite the tensors, but for expanded constants, with those of the first process; one broadcast a dtype."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if is_expanded(tensor):
            continue
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for alike in kinds.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        dist.broadcast(flat, group_src=0, group=group)
        for tensor, piece in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(piece.view_as(tensor))


def gathered(value: Any, group: dist.ProcessGroup | None) -> list[Any]:
    """What each process gives, in the order of their ranks; small things only."""
    if group is None:
        return [value]
    values: list[Any] = [None] * group.size()
    dist.all_gather_object(values, value, group=group)
    return values


def averaged(value: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The mean of a tensor over the processes; of one alone, the tensor itself."""
    if group is None:
        return value
    mean = value.detach() / group.size()
    dist.all_reduce(mean, group=group)
    return mean


def anybody(wanted: bool, group: dist.ProcessGroup) -> bool:
    """Whether it is true in any of the processes."""
    flag = torch.tensor([int(wanted)])
    dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=group)
    return bool(flag.item())


def interleaved(parts: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The parts [k, …] of R processes as [k · R, …]: the first of each process by rank, the second of each, …

    That is the order of the stream that `ShuffledBatches` deals out.
    """
    parts = parts.contiguous()
    whole = [torch.empty_like(parts) for _ in range(group.size())]
    dist.all_gather(whole, parts, group=group)
    return torch.stack(whole, dim=1).flatten(0, 1)
