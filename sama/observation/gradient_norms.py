"""Norms of the gradients of single examples."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from sama.training import Examples


def gradient_norms(model: nn.Module, examples: Examples, device: torch.device, chunk_size: int = 32) -> Tensor:
    """`‖∂ℓ_i/∂θ‖₂` of every example's own cross-entropy by all trainable parameters, float64 [n] on the CPU.

    In eval mode, so that BatchNorm does not mix the examples; the mode is put back. Needs memory for `chunk_size`
    gradients at a time, and costs a forward and a backward an example.
    """
    was_training = model.training
    model.eval()
    trained = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    fixed = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
    fixed |= dict(model.named_buffers())

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, {**parameters, **fixed}, (image[None],))
        return cross_entropy(logits, label[None])  # a batch of one: nothing is averaged

    def squared_norm(image: Tensor, label: Tensor) -> Tensor:
        gradients = grad(loss)(trained, image, label)
        return torch.stack([gradient.double().square().sum() for gradient in gradients.values()]).sum()

    found = [
        vmap(squared_norm)(inputs, examples.labels[chunk].to(device)).cpu()
        for chunk, inputs in examples.batches(chunk_size, device)
    ]
    model.train(was_training)
    return torch.cat(found).sqrt()
