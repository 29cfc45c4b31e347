"""The state of a module and its optimizer in whole tensors, the same over however many processes they are sharded.

Not by `torch.distributed.checkpoint.state_dict`: that takes a step with an optimizer that took none yet, to see its
state, and what it writes has a count of one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from sama.adaptation.replica import held

State = dict[str, Any]


@torch.no_grad()
def full_state(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """`{"module": module.state_dict(), "optimizer": optimizer.state_dict()}`, copied, in whole tensors on the CPU.

    A collective where they are sharded: the first process gets it, the others an empty one. One tensor is gathered
    after the other.

    Raises:
        ValueError: the optimizer has a sharded tensor that is not of its parameter's shape.
    """
    sharded = any(isinstance(p, DTensor) for p in module.parameters())
    of_optimizer, parameters = optimizer.state_dict(), held(optimizer)
    for k, values in of_optimizer["state"].items():
        for name, value in values.items():
            if isinstance(value, DTensor) and value.shape != parameters[k].shape:
                raise ValueError(
                    f"the state {name} of {type(optimizer).__name__} is sharded and of shape {tuple(value.shape)}: "
                    f"expected its parameter's {tuple(parameters[k].shape)}, else it cannot be sharded anew"
                )
    whole = {"module": _mapped(module.state_dict(), _gathered), "optimizer": _mapped(of_optimizer, _gathered)}
    return whole if not sharded or all(k == 0 for k in _place(module)) else {}


def copied(tree: Any) -> Any:
    """The tree with copies of its tensors, so that a state that is kept does not follow the next step."""
    return _mapped(tree, lambda tensor: tensor.detach().clone())


def _place(module: torch.nn.Module) -> list[int]:
    """Where this process stands among those that hold the shards."""
    meshes = [p.device_mesh for p in module.parameters() if isinstance(p, DTensor)]
    return list(meshes[0].get_coordinate() or [0])


@torch.no_grad()
def load_full_state(module: torch.nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Take over what `full_state` gave, of any number of processes; each is given the whole and keeps its part.

    Raises:
        ValueError: the state is an empty one.
    """
    if not state:
        raise ValueError("expected the state that full_state gives to the first process, got an empty one")
    present = module.state_dict()
    module.load_state_dict({n: _like(value, present.get(n)) for n, value in state["module"].items()})
    parameters = held(optimizer)
    of_optimizer = dict(state["optimizer"])
    of_optimizer["state"] = {
        k: {n: _like(value, parameters[k]) for n, value in values.items()}
        for k, values in of_optimizer["state"].items()
    }
    optimizer.load_state_dict(of_optimizer)


def _gathered(tensor: Tensor) -> Tensor:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.to("cpu", copy=True)


def _mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _mapped(value, change) for key, value in tree.items()}
    return type(tree)(_mapped(value, change) for value in tree) if type(tree) in (list, tuple) else tree


def _like(value: Any, parameter: Any) -> Any:
    """A copy of the tensor, sharded like the parameter if it has its shape; counters have not. Others as they are."""
    if not isinstance(value, Tensor):
        return value
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value.clone()
    there = value.to(parameter.device)
    return distribute_tensor(there, parameter.device_mesh, parameter.placements, src_data_rank=None)
