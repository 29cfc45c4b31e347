"""A bilevel program in mixed precision, as a hypergradient method is to see it.

The meta loss runs under `torch.autocast`, as the base step's forward does. A loss that a difference is taken of does
not: θ ± εv differ by less than what bf16 keeps of θ, and what is left of the difference is rounding (`docs/log.md`).
Nor does the meta network.

Every method is linear in `L_meta`, so that the hypergradient of a meta loss times the scale s of fp16 is s times the
hypergradient: it goes to λ's `.grad`, and `precision.meta_scaler.unscale_(optimizer)` divides it. A base step that
`Precision.apply` skipped has no adaptation: its meta step is to be skipped too.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from sama.bilevel.precision import Precision
from sama.hypergradient.program import Batch, Params, Program, WeightingProgram
from sama.hypergradient.result import Hypergradient


def mixed(program: Program, precision: Precision) -> Program:
    """The meta loss under autocast and scaled, everything else in float32.

    A weighting program stays one. `prepare` and whatever else the program has beyond the protocol is not there.
    """
    return _MixedWeighting(program, precision) if isinstance(program, WeightingProgram) else _Mixed(program, precision)


def unscaled_meta_loss(result: Hypergradient, precision: Precision) -> Tensor:
    """The meta loss without the scale; to be read before the scale is updated."""
    return result.meta_loss / precision.meta_scaler.get_scale()


class _Mixed:
    """A program seen through a precision."""

    def __init__(self, program: Any, precision: Precision) -> None:
        self.inner, self.precision = program, precision
        if hasattr(program, "norm"):  # of shards
            self.norm = program.norm

    def base_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        with self.precision.full():
            return self.inner.base_loss(base, meta, batch)

    def meta_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        with self.precision.autocast():
            loss = self.inner.meta_loss(base, meta, batch)
        return self.precision.meta_scaler.scale(loss)

    def buffers(self) -> Iterable[Tensor]:
        return self.inner.buffers()


class _MixedWeighting(_Mixed):
    """A weighting program seen through a precision."""

    def example_losses(self, base: Params, batch: Batch) -> tuple[Tensor, Tensor]:
        with self.precision.full():
            return self.inner.example_losses(base, batch)

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        with self.precision.full():
            return self.inner.weights(meta, features)
