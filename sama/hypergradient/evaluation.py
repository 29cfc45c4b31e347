"""Evaluations of a loss that leave no trace: buffers and random state are put back, also when the loss raises."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sama.hypergradient.program import Batch, parts

Arrived = Callable[[str, Tensor], None]
"""Told a gradient's name and value as soon as it is known, while the backward pass still runs."""


class RandomState:
    """A snapshot of torch's random state on the CPU and on the CUDA devices in use."""

    def __init__(self) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore(self) -> None:
        """Make the next random draws those that followed the snapshot."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def untouched(program: Any) -> Iterator[RandomState]:
    """Put back the program's buffers and the random state when the block ends, however it ends.

    Yields the random state at entry: call its `restore` before each of two evaluations that must draw the same
    dropout masks.
    """
    state = RandomState()
    saved = [(buffer, buffer.detach().clone()) for buffer in program.buffers() if not is_expanded(buffer)]
    try:
        yield state
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        state.restore()


def is_expanded(tensor: Tensor) -> bool:
    """Whether several elements share a place in memory: a constant, which cannot be written."""
    return any(step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def differentiable_kernels() -> AbstractContextManager[object]:
    """Attention by its math kernel: the fused ones have neither a second nor a forward-mode derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def detached(parameters: Mapping[str, Tensor], *, requires_grad: bool) -> dict[str, Tensor]:
    """The same values as fresh leaves that share memory with the parameters."""
    return {name: p.detach().requires_grad_(requires_grad) for name, p in parameters.items()}


def gradients(
    output: Tensor,
    parameters: Mapping[str, Tensor],
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
    arrived: Arrived | None = None,
) -> dict[str, Tensor]:
    """`∂ output/∂ parameters` name by name; zeros where the output does not depend on one."""
    told: set[str] = set()

    def tell(name: str, gradient: Tensor) -> None:
        if arrived is not None:
            told.add(name)
            arrived(name, gradient)

    hooks = [p.register_hook(partial(tell, name)) for name, p in parameters.items()] if arrived is not None else []
    leaves = list(parameters.values())
    try:
        values = _differentiated(output, leaves, create_graph=create_graph, retain_graph=retain_graph)
    finally:
        for hook in hooks:
            hook.remove()
    found = dict(zip(parameters, _filled(values, leaves), strict=True))
    for name in parameters:
        if name not in told:
            tell(name, found[name])
    return found


def _differentiated(
    output: Tensor, leaves: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> Sequence[Tensor | None]:
    """The gradients by the leaves; None for one that the output does not depend on."""
    if not output.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(
        output, leaves, create_graph=create_graph, retain_graph=create_graph or retain_graph, allow_unused=True
    )


def _filled(gradients: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True)]


def mean_loss(loss: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
    """The mean of `loss` over the micro-batches, in one graph."""
    values = [loss(part) for part in parts(batch)]
    return values[0] if len(values) == 1 else torch.stack(values).mean()


def gradients_of_both(
    loss: Callable[[Batch], Tensor], batch: Batch, base: Mapping[str, Tensor], meta: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The mean of `loss` over the micro-batches, its `∂/∂θ` and its `∂/∂λ`; a graph and a backward pass a part.

    No `∂/∂λ` shares its memory with a `∂/∂θ`, which the adaptation may write over.

    Raises:
        ValueError: the loss depends on no θ that it was given.
    """
    leaves = [*base.values(), *meta.values()]
    values, sums = [], []
    for part in parts(batch):
        value = loss(part)
        found = _differentiated(value, leaves)
        if all(gradient is None for gradient in found[: len(base)]):
            raise ValueError(
                "a loss does not depend on the base parameters that it was given: expected the module to be evaluated "
                "with them, by torch.func.functional_call(module, base, inputs)"
            )
        found = _filled(found, leaves)
        sums = torch._foreach_add(sums, found) if sums else found  # autograd may hand out one tensor twice
        values.append(value.detach())
        del value, found
    if len(values) > 1:
        torch._foreach_div_(sums, len(values))
    of_base, of_meta = sums[: len(base)], sums[len(base) :]
    # of θ + λ autograd gives both the same gradient, and of a part of it a view
    places = {x.untyped_storage().data_ptr() for x in of_base if type(x) is Tensor}
    of_meta = [x.clone() if type(x) is Tensor and x.untyped_storage().data_ptr() in places else x for x in of_meta]
    return (
        torch.stack(values).mean(),
        dict(zip(base, of_base, strict=True)),
        dict(zip(meta, of_meta, strict=True)),
    )


def norm(vector: Mapping[str, Tensor]) -> Tensor:
    """The 2-norm over all tensors, a scalar on their device (no synchronisation)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(vector.values()))))


def norm_of(program: Any, vector: Mapping[str, Tensor]) -> Tensor:
    """The 2-norm of a vector shaped like θ; by `program.norm` where other processes hold the rest of it."""
    return getattr(program, "norm", norm)(vector)


def moved(base: Mapping[str, Tensor], direction: Mapping[str, Tensor], scale: Tensor | float) -> dict[str, Tensor]:
    """`θ + scale · direction`, new tensors; a name that the direction lacks stays as it is."""
    names = list(direction)
    values = torch._foreach_mul([direction[name] for name in names], scale)
    torch._foreach_add_(values, [base[name].detach() for name in names])
    return {**{name: p.detach() for name, p in base.items()}, **dict(zip(names, values, strict=True))}
