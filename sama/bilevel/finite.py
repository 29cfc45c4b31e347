"""A loss that is not finite stops the training at once, and says where it came from."""

from collections.abc import Mapping

import torch
from torch import Tensor


def require_finite(loss: Tensor, name: str, step: int, tensors: Mapping[str, Tensor]) -> None:
    """Return if the scalar `loss` is finite.

    Args:
        loss: the scalar.
        name: what to call it.
        step: the step that it belongs to, counted from 1.
        tensors: name -> what went into it; the first that is not finite is named, or else the largest.

    Raises:
        ValueError: the loss is no scalar. FloatingPointError: the loss is NaN or infinite; names step, loss and tensor.
    """
    if loss.ndim:
        raise ValueError(f"step {step}: expected a scalar {name}, got shape {list(loss.shape)}")
    if torch.isfinite(loss):
        return
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        origin = f"the first tensor that is not finite is {bad[0]}"
    else:
        sizes = {key: tensor.detach().abs().max().item() for key, tensor in tensors.items() if tensor.numel()}
        largest = max(sizes, key=lambda key: sizes[key])
        origin = f"of what went in all is finite, the largest is {largest} with {sizes[largest]:.3g}"
    raise FloatingPointError(
        f"step {step}: the {name} is {loss.item()}, expected a finite number; {origin}: "
        "lower the learning rate or look at the inputs"
    )
