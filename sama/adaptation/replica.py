"""Copies of an optimizer with its state and parameters, to step on without touching the real ones."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Gradients = Sequence[Tensor | None]
"""One for each parameter, in the order of `held`; None where the step had none."""


def held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The optimizer's parameters, group by group."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def replicate(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A copy with parameters and state of its own, without hooks.

    Not `copy.deepcopy(optimizer)`: that keeps the groups and the state alone and loses what else a class set in
    `__init__`. What stands on the object as `step` is left behind: learning-rate schedulers put a wrapper there that
    steps the real optimizer whoever calls it.

    Raises:
        ValueError: the optimizer cannot be copied.
    """
    kept = {name: value for name, value in vars(optimizer).items() if name != "step" and not name.endswith("_hooks")}
    hooks = {name: OrderedDict() for name in vars(optimizer) if name.endswith("_hooks")}
    try:
        kept = copy.deepcopy(kept)
    except Exception as error:
        raise ValueError(cannot(optimizer, "copied", error)) from error
    twin = object.__new__(type(optimizer))
    twin.__dict__.update(kept, **hooks)
    for parameter in held(twin):
        parameter.requires_grad_(False)
    return twin


def convert(optimizer: torch.optim.Optimizer, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of a replica's state and groups, parameters aside, by `change(tensor)`."""
    for group in optimizer.param_groups:
        group.update({name: _changed(value, change) for name, value in group.items() if name != "params"})
    for state in optimizer.state.values():
        if isinstance(state, dict):
            state.update({name: _changed(value, change) for name, value in state.items()})


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _changed(item, change) for name, item in value.items()}
    return type(value)(_changed(item, change) for item in value) if type(value) in (list, tuple) else value


def take_step(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Gradients) -> None:
    """Give a replica's parameters their gradients and step. Runs the class's own step, without anyone's hooks.

    Raises:
        ValueError: the step failed.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    step: Any = type(optimizer).step
    if getattr(step, "hooked", False):  # torch wraps the class's step to run hooks, global ones too
        step = step.__wrapped__
    try:
        step(optimizer)
    except Exception as error:
        raise ValueError(cannot(optimizer, "stepped", error)) from error


def cannot(optimizer: torch.optim.Optimizer, what: str, error: Exception) -> str:
    """The message for an optimizer of which a copy is no use."""
    return (
        f"no adaptation serves the optimizer {type(optimizer).__name__}: a copy of it cannot be {what} "
        f"({type(error).__name__}: {error}); {REMEDY}"
    )


REMEDY = "register its Dᵀx with sama.adaptation.register, or use the method sama_na, which needs none"


@contextmanager
def same_draws(optimizer: torch.optim.Optimizer) -> Iterator[Callable[[], None]]:
    """Put torch's random state back at the end; the value, when called, rewinds it to the beginning."""
    devices = sorted({p.device.index for p in held(optimizer) if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        cpu = torch.get_rng_state()
        cuda = [torch.cuda.get_rng_state(device) for device in devices]

        def rewind() -> None:
            torch.set_rng_state(cpu)
            for device, state in zip(devices, cuda, strict=True):
                torch.cuda.set_rng_state(state, device)

        yield rewind
