"""What a closed form sees of one parameter's last step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def scalar(value: Any) -> Any:
    """A number of the optimizer: a float wherever that costs no synchronisation, else a tensor of no dimension."""
    if not isinstance(value, Tensor):
        return value
    value = value.detach()
    return float(value) if value.device.type == "cpu" else value.squeeze()


def full(tensor: Tensor) -> Tensor:
    """Half precision becomes float32: squares and their inverses leave its range."""
    return tensor.float() if tensor.dtype in HALVES else tensor


@dataclass(frozen=True)
class LastStep:
    """One parameter's last step.

    Attributes:
        optimizer: after the step. group, state: what it holds for this parameter.
        parameter: after the step.
        raw_gradient: the gradient that the optimizer saw, before `maximize` and weight decay.
        gradients: those of all parameters (LAMB clips by their norm).
        before: the parameter before the step, where the rule asked for it.
        fresh: no state stood before this step; None if nobody looked.
        exact: give the formula's limit where there is no evidence (see `sama.adaptation`), not 0.
    """

    optimizer: torch.optim.Optimizer
    group: Mapping[str, Any]
    state: Mapping[str, Any]
    parameter: Tensor
    raw_gradient: Tensor
    gradients: Sequence[Tensor]
    before: Tensor | None
    fresh: bool | None
    exact: bool

    def rows(self, rows: slice) -> "LastStep":
        """The same step of some rows of the parameter; views, no copies."""
        shape = self.parameter.shape
        return replace(
            self,
            state={k: v[rows] if isinstance(v, Tensor) and v.shape == shape else v for k, v in self.state.items()},
            parameter=self.parameter[rows],
            raw_gradient=self.raw_gradient[rows],
            before=None if self.before is None else self.before[rows],
        )

    def option(self, name: str) -> Any:
        """A number of the parameter group; tensors on the CPU become floats."""
        return scalar(self.group[name])

    @property
    def sign(self) -> float:
        """−1 under `maximize`: the optimizer turns the gradient before it does anything else."""
        return -1.0 if self.group.get("maximize") else 1.0

    @property
    def betas(self) -> tuple[Any, Any]:
        """The two decay rates of the moments."""
        beta1, beta2 = self.group["betas"]
        return scalar(beta1), scalar(beta2)

    @property
    def count(self) -> Any:
        """How many steps this parameter took: a float, or a tensor where it lives on an accelerator (`capturable`).

        Powers of β need more digits than the float32 of the counter gives them, so a tensor goes to float64.
        """
        count = scalar(self.moment("step"))
        return count.double() if isinstance(count, Tensor) and count.device.type != "mps" else count

    def moment(self, name: str) -> Tensor:
        """A tensor of the state, in float32 at least.

        Raises:
            ValueError: the state does not hold it, because no step was taken.
        """
        if name not in self.state:
            kind = type(self.optimizer).__name__
            raise ValueError(
                f"the adaptation of {kind} needs the state of a step: take a base step before the meta step"
            )
        return full(self.state[name])

    def gradient(self, *, before: Tensor | None = None) -> Tensor:
        """What enters the update: `±g`, plus `weight_decay·θ` where the decay is coupled; θ as before the step."""
        gradient = full(self.raw_gradient)
        gradient = -gradient if self.group.get("maximize") else gradient
        if not coupled_decay(self.group):
            return gradient
        return gradient.add(
            full(self.parameter_before) if before is None else before, alpha=self.option("weight_decay")
        )

    @property
    def parameter_before(self) -> Tensor:
        """θ before the step.

        Raises:
            ValueError: nobody remembered it.
        """
        if self.before is None:
            raise ValueError(missing(self.optimizer, "the parameters from before the step"))
        return self.before


def missing(optimizer: torch.optim.Optimizer, what: str) -> str:
    """The message for a memory that was not taken."""
    return (
        f"the adaptation of {type(optimizer).__name__} needs {what}: "
        "call before = sama.adaptation.remember(optimizer) before its step and pass before= to adapt"
    )


def coupled_decay(group: Mapping[str, Any]) -> bool:
    """Weight decay that enters the gradient and with it the moments (L2), not the parameter alone."""
    return bool(group.get("weight_decay")) and not group.get("decoupled_weight_decay", False)


Form = Callable[[LastStep, Tensor], Tensor]
"""(last step, x) -> Dᵀ x, shaped like the parameter."""
