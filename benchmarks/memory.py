"""Peak memory of a step with a meta step, against a plain step of the same model, method by method.

A weighting program with a BERT-shaped base model (4 layers, 256 wide, eager attention for all methods), unroll 1.
Resident: parameters, optimizer states and the batch, which live between steps. Above it: the most bytes alive at one
moment of a step, in tensors that the step made (activations, gradients, temporaries). On the CPU tensors are followed
by a dispatch mode, which does not see scratch space inside of a kernel; on CUDA the allocator is asked.
`python -m benchmarks.memory [cpu|cuda]` prints a markdown table.
"""

import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.flops import METHODS, make_loop

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-3),
}
BATCHES = {"parameters dominate": (2, 8), "activations dominate": (8, 64)}
"""Examples and tokens of a batch; the model has 3.5 million parameters."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that were made inside of the block and are alive; `peak` is their largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak = 0, 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, None] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            self._seen.setdefault(storage)  # made before the block, or counted already
        out = func(*args, **kwargs)
        for storage in _storages(out):
            if storage not in self._seen:
                self._seen[storage] = None
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return out

    def _add(self, count: int) -> None:
        self.live += count
        self.peak = max(self.peak, self.live)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def peak_of(step: Callable[[], Any], device: str) -> int:
    """Most bytes alive at one moment of the step, above what was alive before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with LiveBytes() as counter:
        step()
    return counter.peak


def size(tensors: Any) -> int:
    return sum(storage.nbytes() for storage in _storages(tensors))


def loop_on(device: str, optimizer: str, method: str, options: dict[str, Any], *, unroll_steps: int, batch):
    return make_loop(
        method,
        options,
        unroll_steps=unroll_steps,
        examples=batch[0],
        tokens=batch[1],
        optimizer=OPTIMIZERS[optimizer],
        device=device,
    )


def measure(optimizer: str, batch: tuple[int, int], methods: Any = METHODS, device: str = "cpu") -> dict[str, int]:
    """Bytes: `parameters`, `resident`, and above resident `plain step` and a step with a meta step of each method."""
    loop = loop_on(device, optimizer, "sama", {}, unroll_steps=1000, batch=batch)
    loop.step()  # the first one makes the states
    model = list(loop.base.parameters())
    kept = [model, list(loop.meta.parameters()), [dict(s) for s in loop.base_optimizer.state.values()]]
    found = {"parameters": size(model), "resident": size([kept, vars(next(loop.batches))])}
    found["plain step"] = peak_of(loop.step, device)
    for label in methods:
        method, options = METHODS[label]
        loop = loop_on(device, optimizer, method, options, unroll_steps=1, batch=batch)
        loop.step()
        found[label] = peak_of(loop.step, device)
    return found


def main(device: str) -> None:
    print("| optimizer | batch | method, unroll 1 | resident + above it, MB | above the plain step, in parameters |")
    print("|---|---|---|---|---|")
    for optimizer in OPTIMIZERS:
        for label, batch in BATCHES.items():
            found = measure(optimizer, batch, device=device)
            parameters, resident, plain = found["parameters"], found["resident"], found["plain step"]
            for name in ("plain step", *METHODS):
                extra = (found[name] - plain) / parameters
                sizes = f"{resident / 1e6:.1f} + {found[name] / 1e6:.1f}"
                print(f"| {optimizer} | {label} | {name} | {sizes} | {extra:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "cpu")
