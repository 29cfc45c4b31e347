"""Evaluations of a loss that leave no trace: buffers and random state are put back, also when the loss raises."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


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
    saved = [(buffer, buffer.detach().clone()) for buffer in program.buffers()]
    try:
        yield state
    finally:
        with torch.no_grad():
            for buffer, value in saved:
                buffer.copy_(value)
        state.restore()


def differentiable_kernels() -> AbstractContextManager[object]:
    """Attention by its math kernel: the fused ones have neither a second nor a forward-mode derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def detached(parameters: Mapping[str, Tensor], *, requires_grad: bool) -> dict[str, Tensor]:
    """The same values as fresh leaves that share memory with the parameters."""
    return {name: p.detach().requires_grad_(requires_grad) for name, p in parameters.items()}


def gradients(
    output: Tensor, parameters: Mapping[str, Tensor], *, create_graph: bool = False, retain_graph: bool = False
) -> dict[str, Tensor]:
    """`∂ output/∂ parameters` name by name; zeros where the output does not depend on one."""
    if not output.requires_grad:
        return {name: torch.zeros_like(p) for name, p in parameters.items()}
    values = torch.autograd.grad(
        output,
        list(parameters.values()),
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
    )
    return {
        name: torch.zeros_like(p) if value is None else value
        for (name, p), value in zip(parameters.items(), values, strict=True)
    }


def gradients_of_both(
    output: Tensor, base: Mapping[str, Tensor], meta: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """`∂ output/∂θ` and `∂ output/∂λ` in one backward pass."""
    both = gradients(
        output, {**{f"θ/{name}": p for name, p in base.items()}, **{f"λ/{name}": p for name, p in meta.items()}}
    )
    return {name: both[f"θ/{name}"] for name in base}, {name: both[f"λ/{name}"] for name in meta}


def norm(vector: Mapping[str, Tensor]) -> Tensor:
    """The 2-norm over all tensors, a scalar on their device (no synchronisation)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(vector.values()))))


def moved(base: Mapping[str, Tensor], direction: Mapping[str, Tensor], scale: Tensor | float) -> dict[str, Tensor]:
    """`θ + scale · direction`, new tensors; a name that the direction lacks stays as it is."""
    names = list(direction)
    values = torch._foreach_mul([direction[name] for name in names], scale)
    torch._foreach_add_(values, [base[name].detach() for name in names])
    return {**{name: p.detach() for name, p in base.items()}, **dict(zip(names, values, strict=True))}
