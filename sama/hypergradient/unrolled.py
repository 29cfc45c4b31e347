"""A torch optimizer's step as a differentiable function that leaves the optimizer alone."""

import copy
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

State = dict[str, dict[str, Any]]
"""name of the parameter -> its optimizer state."""


class DifferentiableUpdate:
    """`θ' = θ − u(g; state)` under autograd, from the optimizer's own code with `differentiable=True`.

    The groups (learning rates, weight decay, …) are read at each call, so a scheduler is seen; nothing is written.
    The first step of `torch.optim.SGD` with momentum detaches its new buffer even so (torch 2.15), which would make
    every derivative through it 0; it is given a buffer that leads to the same step.
    Where a gradient was exactly 0 all along, so is the second moment, and autograd cannot differentiate its root:
    nothing is passed back through such a coordinate, as in `sama.adaptation` (no evidence, no derivative).

    Args:
        optimizer: the base optimizer. parameters: name -> the very tensors that it holds.

    Raises:
        ValueError: the optimizer's step cannot be differentiated, or it does not hold one of the parameters.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> None:
        kind = type(optimizer).__name__
        if "differentiable" not in optimizer.defaults:
            raise ValueError(
                f"the step of {kind} cannot be differentiated: expected an optimizer of torch.optim that takes "
                "differentiable=True (SGD, Adam, AdamW, RMSprop, …); sama, sama_na, neumann and cg need none"
            )
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, parameter in parameters.items():
            if id(parameter) not in held:
                raise ValueError(f"parameter {name}: the optimizer {kind} does not hold it")
        self._optimizer, self._parameters = optimizer, dict(parameters)

    def state(self) -> State:
        """A copy of the optimizer's present state."""
        return {name: _copied(self._optimizer.state.get(p, {})) for name, p in self._parameters.items()}

    def __call__(self, theta: Mapping[str, Tensor], g: Mapping[str, Tensor], state: State) -> tuple[dict, State]:
        """One step from θ along g; new tensors that hang on the graphs of both."""
        after = {name: theta[name].clone() for name in self._parameters}
        names = {id(p): name for name, p in self._parameters.items()}
        twin = copy.copy(self._optimizer)  # shallow: class and groups; hooks and patched methods stay behind
        twin.defaults = {**self._optimizer.defaults, "differentiable": True}
        twin.param_groups = [
            {
                **group,
                "params": [after[names[id(p)]] for p in group["params"] if id(p) in names],
                "differentiable": True,
                **{key: False for key in ("foreach", "fused") if key in group},
            }
            for group in self._optimizer.param_groups
        ]
        # clones: the step works in place, and the values before it are saved for the way back
        twin.state = defaultdict(dict, {after[name]: _copied(state[name], detach=False) for name in after})
        if isinstance(twin, torch.optim.SGD):
            _begin_momentum(twin, {after[name]: g[name] for name in after})
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            for name, value in after.items():
                value.grad = _finite_where_zero(g[name])
            twin.step()
            for value in after.values():
                value.grad = None
        return {**theta, **after}, {name: dict(twin.state[value]) for name, value in after.items()}


def _finite_where_zero(g: Tensor) -> Tensor:
    """g itself, whose gradient is 0 instead of not finite where g is 0."""
    if not g.requires_grad:
        return g
    same, without_evidence = g.clone(), g.detach() == 0
    same.register_hook(lambda x: torch.where(without_evidence & ~x.isfinite(), torch.zeros_like(x), x))
    return same


def _begin_momentum(optimizer: torch.optim.SGD, gradients: Mapping[Tensor, Tensor]) -> None:
    """Give a parameter without momentum buffer b the one with `μb + (1−τ)g = g`, μ the momentum, τ the dampening.

    `b ← g` is what the first step does, and g includes weight decay and the sign of `maximize`.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                sign = -1.0 if group["maximize"] else 1.0
                seen = sign * gradients[parameter] + group["weight_decay"] * parameter
                state["momentum_buffer"] = seen * (group["dampening"] / group["momentum"])


def _copied(state: Mapping[str, Any], *, detach: bool = True) -> dict[str, Any]:
    return {
        key: (value.detach() if detach else value).clone() if isinstance(value, Tensor) else value
        for key, value in state.items()
    }
