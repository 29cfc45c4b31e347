"""Mixed precision: which forwards of a bilevel program may run in bf16 or fp16, and the loss scales of fp16."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sama.hypergradient.program import Batch, Params, Program, WeightingProgram
from sama.hypergradient.result import Hypergradient

Name = Literal["float32", "bf16", "fp16"]


class Precision:
    """The precision of the forwards. Parameters, optimizer states and the arithmetic of hypergradients stay float32.

    The base step's forward and the meta loss run under `torch.autocast`. A loss that a difference is taken of does
    not: θ ± εv differ by less than what bf16 keeps of θ, and what is left of the difference is rounding
    (`docs/log.md`). Nor does the meta network.

    fp16 needs loss scaling, with one `torch.amp.GradScaler` a level; otherwise both are switched off and do nothing.
    Every method is linear in `L_meta`, so that the hypergradient of a meta loss times s is s times the hypergradient:

        gradients of `base_scaler.scale(loss)` -> `.grad`;  `base_scaler.unscale_(optimizer)`;  clip;  `apply(…)`
        result = method(precision.program(program), …);  result.gradient -> λ's `.grad`;
        loss = precision.meta_loss(result);  `meta_scaler.unscale_(optimizer)`;  clip;  `apply(…)`

    A base step that `apply` skipped has no adaptation: its meta step is to be skipped too.

    Args:
        name: float32, bf16 or fp16. device_type: of the modules, "cpu" or "cuda".

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, name: Name, device_type: str) -> None:
        if name not in get_args(Name):
            raise ValueError(f"expected precision float32, bf16 or fp16, got {name!r}")
        self.name, self.device_type = name, device_type
        self.base_scaler, self.meta_scaler = (
            torch.amp.GradScaler(device_type, enabled=name == "fp16") for _ in ("base", "meta")
        )

    def autocast(self) -> AbstractContextManager[object]:
        """For a forward that no difference is taken of. In float32 it is `full`."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device_type, dtype=dtype, enabled=self.name != "float32")

    def full(self) -> AbstractContextManager[object]:
        """For everything else: float32, also inside of somebody's block that switched autocast on."""
        return torch.autocast(self.device_type, enabled=False)

    @property
    def same_losses(self) -> bool:
        """Whether the base step's losses may stand in a difference: only then is a method told of `evaluated`."""
        return self.name == "float32"

    def program(self, program: Program) -> Program:
        """What a hypergradient method is to see: the meta loss under autocast and scaled, everything else in float32.

        A weighting program stays one. `prepare` and whatever else the program has beyond the protocol is not there.
        """
        return _MixedWeighting(program, self) if isinstance(program, WeightingProgram) else _Mixed(program, self)

    def meta_loss(self, result: Hypergradient) -> Tensor:
        """The meta loss without the scale; to be read before the scale is updated."""
        return result.meta_loss / self.meta_scaler.get_scale()

    @staticmethod
    def apply(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> bool:
        """Step along the unscaled gradients and update the scale. False: they were not finite, no step was taken."""
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        return scaler.get_scale() >= scale  # only a step that was skipped makes it smaller

    def state_dict(self) -> dict[str, Any]:
        """The loss scales and how long they have stood."""
        return {"name": self.name, "base": self.base_scaler.state_dict(), "meta": self.meta_scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with these scales.

        Raises:
            ValueError: the state is of another precision.
        """
        if state["name"] != self.name:
            raise ValueError(f"expected a state of precision {self.name}, got one of {state['name']}")
        self.base_scaler.load_state_dict(state["base"])
        self.meta_scaler.load_state_dict(state["meta"])


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
