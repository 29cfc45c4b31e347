"""Penultimate features of a timm classifier."""

from typing import Any

import torch
from torch import Tensor, nn

from sama.training import Examples


def pre_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the classifier's last linear layer sees of a batch, [batch, d]."""
    body: Any = model
    return body.forward_head(body.forward_features(inputs), pre_logits=True)


@torch.no_grad()
def penultimate_features(model: nn.Module, examples: Examples, device: torch.device, batch_size: int = 512) -> Tensor:
    """What the classifier's last linear layer sees, float32 [n, d] on the CPU, in eval mode; the mode is put back.

    Raises:
        ValueError: the model does not part features from head as timm's classifiers do.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise ValueError(f"{type(model).__name__} has no forward_features and forward_head: expected a timm classifier")
    was_training = model.training
    model.eval()
    found = [pre_logits(model, inputs).float().cpu() for _, inputs in examples.batches(batch_size, device)]
    model.train(was_training)
    return torch.cat(found)
