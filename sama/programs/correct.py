"""Label correction, with or without reweighting: meta networks rewrite the weak labels and weight the examples."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import log_softmax, one_hot

from sama.hypergradient.program import Params
from sama.programs.weighted import LabelledBatch, Weighted


class Correct(Weighted):
    """`L_base = mean_i w_i Σ_c ỹ_ic (−log p_ic)`, `L_meta = mean_j ℓ_j`; the paper's R&C, or correction alone.

    The corrected label ỹ_i comes from the representation and the weak label, w_i from the loss against ỹ_i
    (`sama.networks.correction.CorrectAndWeight`; its `weighting` None is w = 1; w alone is `Reweight`). What the
    networks see of the base model is held (`docs/deviations.md`), so this is the weighting form with a loss a class:
    `ℓ_ic = −log p_ic` with weight `w_i ỹ_ic`.

    Args:
        model: base model, inputs -> logits [batch, classes].
        network: (log-probabilities, representation, weak label) -> weights [batch], corrected labels [batch, classes].
        classes: number of classes.
        head: the layer of the model whose input [batch, d] is the representation (`model.classifier`, or what it is
            called); None: the class probabilities are.
        normalize: divide the w_i by their batch mean.

    Raises:
        ValueError: the head is no part of the model.
    """

    def __init__(
        self, model: nn.Module, network: nn.Module, *, classes: int, head: nn.Module | None, normalize: bool
    ) -> None:
        if head is not None and all(head is not module for module in model.modules()):
            raise ValueError(f"expected head to be a layer of the model, got a {type(head).__name__} of its own")
        super().__init__(model, network, normalize=normalize)
        self.classes, self.head = classes, head

    def example_losses(self, base: Params, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """`−log p` [batch, classes], and detached features: log-probabilities, representation, weak label.

        Raises:
            ValueError: the model has another number of classes.
        """
        with input_of(self.head) as seen:
            logits = self.outputs(base, batch.inputs)
        if logits.shape[1:] != (self.classes,):
            raise ValueError(f"expected logits [batch, {self.classes}] of the base model, got {list(logits.shape)}")
        log_probabilities = log_softmax(logits, dim=-1)
        representation = seen[0] if seen else log_probabilities.exp()
        weak = batch.labels if batch.labels.ndim == 2 else one_hot(batch.labels, self.classes)
        return -log_probabilities, torch.cat([log_probabilities, representation, weak.to(logits)], dim=-1).detach()

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """`w_i ỹ_ic` [batch, classes]."""
        weights, labels = self.weights_and_labels(meta, features)
        return self.normalized(weights)[:, None] * labels

    def weights_and_labels(self, meta: Params, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the networks say of each example by itself: weights [batch], corrected labels [batch, classes].

        `features` as `example_losses` gives them and as `BilevelLoop` reports them of every base step.
        """
        ends = self.classes, features.shape[1] - self.classes
        return functional_call(self.network, dict(meta), tuple(features.tensor_split(ends, dim=1)))


@contextmanager
def input_of(layer: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collects the first argument of the layer's calls."""
    seen: list[Tensor] = []
    if layer is None:
        yield seen
        return
    hook = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        yield seen
    finally:
        hook.remove()
