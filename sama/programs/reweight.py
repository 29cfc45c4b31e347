"""Reweighting: a meta network weights the training examples so that the base model does well on the meta set."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softmax

from sama.hypergradient.program import Params
from sama.programs.weighted import LabelledBatch, Weighted

__all__ = ["LabelledBatch", "Reweight"]


class Reweight(Weighted):
    """`L_base = mean_i w_i ℓ_i`, `L_meta = mean_j ℓ_j`; ℓ is cross-entropy, w the meta network on [loss, uncertainty].

    The uncertainty is the cross-entropy of the model's prediction against the EMA teacher's class probabilities
    (the feature of the paper's data pruning, section 4.3).

    Args:
        model: base model, inputs -> logits [batch, classes].
        network: meta network, features [batch, k] -> weights [batch].
        features: names out of "loss", "uncertainty", in the order of the network's inputs.
        teacher: EMA teacher, needed for "uncertainty".
        normalize: divide the weights by their batch mean.

    Raises:
        ValueError: an unknown feature, or uncertainty without a teacher.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        *,
        features: tuple[str, ...],
        teacher: nn.Module | None,
        normalize: bool,
    ) -> None:
        unknown = set(features) - {"loss", "uncertainty"}
        if unknown or not features:
            raise ValueError(f"expected features out of loss, uncertainty, got {', '.join(features) or 'none'}")
        if "uncertainty" in features and teacher is None:
            raise ValueError("the feature uncertainty needs an EMA teacher, got none")
        super().__init__(model, network, normalize=normalize)
        self.features, self.teacher = features, teacher

    @torch.no_grad()
    def prepare(self, batch: LabelledBatch) -> LabelledBatch:
        """Add the teacher's probabilities: one teacher forward a base batch, shared by all evaluations of it."""
        if self.teacher is None or "uncertainty" not in self.features:
            return batch
        return replace(batch, teacher=softmax(self.teacher(batch.inputs), dim=-1))

    def example_losses(self, base: Params, batch: LabelledBatch) -> tuple[Tensor, Tensor]:
        """Losses [batch] and detached features [batch, k]."""
        logits = self.outputs(base, batch.inputs)
        losses = cross_entropy(logits, batch.labels, reduction="none")
        return losses, self.example_features(logits, losses, batch.teacher)

    def example_features(self, logits: Tensor, losses: Tensor, teacher: Tensor | None) -> Tensor:
        """Features [batch, k] in the order of `features`, without a graph."""
        columns = []
        for name in self.features:
            if name == "loss":
                columns.append(losses.detach())
            elif teacher is not None:
                columns.append(cross_entropy(logits.detach(), teacher, reduction="none"))
            else:
                raise ValueError("the feature uncertainty needs a prepared batch: call prepare(batch) first")
        return torch.stack(columns, dim=-1)

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """Weights [batch] of the meta network, divided by their mean if `normalize`."""
        return self.normalized(self.raw_weights(meta, features))

    def raw_weights(self, meta: Params, features: Tensor) -> Tensor:
        """What the meta network says of each example by itself, in (0, 1), [batch]."""
        return functional_call(self.network, dict(meta), (features,))
