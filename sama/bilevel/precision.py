"""Mixed precision: where forwards run in bf16 or fp16, and the loss scales of fp16."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import torch

Name = Literal["float32", "bf16", "fp16"]


class Precision:
    """The precision of the forwards. Parameters, optimizer states and the arithmetic of hypergradients stay float32.

    fp16 needs loss scaling, with one `torch.amp.GradScaler` a level; otherwise both are switched off and do nothing:

        gradients of `scaler.scale(loss)` -> `.grad`;  `scaler.unscale_(optimizer)`;  clip;  `apply(scaler, optimizer)`

    What a hypergradient method sees of it: `sama.bilevel.mixed`.

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
