"""Norms of the gradients of single examples."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from sama.training import Examples

CHUNK = 32  # gradients in memory at a time


def batch_gradient_norms(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """`‖∂ℓ_i/∂θ‖₂` of each example's own cross-entropy by all trainable parameters, float64 [batch].

    The model has to be in evaluation mode, where BatchNorm does not mix the examples. Needs memory for one gradient an
    example, and costs a forward and a backward.
    """
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    fixed = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
    fixed |= dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, {**parameters, **fixed}, (image[None],))
        return cross_entropy(logits, label[None])  # a batch of one: nothing is averaged

    def squared_norm(image: Tensor, label: Tensor) -> Tensor:
        gradients = grad(loss)(trained, image, label)
        return torch.stack([gradient.double().square().sum() for gradient in gradients.values()]).sum()

    return vmap(squared_norm)(inputs, labels).sqrt()


def gradient_norms(model: nn.Module, examples: Examples, device: torch.device, chunk_size: int = CHUNK) -> Tensor:
    """`batch_gradient_norms` of all examples, float64 [n] on the CPU; in evaluation mode, and the mode is put back."""
    was_training = model.training
    model.eval()
    found = [
        batch_gradient_norms(model, inputs, examples.labels[chunk].to(device)).cpu()
        for chunk, inputs in examples.batches(chunk_size, device)
    ]
    model.train(was_training)
    return torch.cat(found)
