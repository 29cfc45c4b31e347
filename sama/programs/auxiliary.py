"""Weights on a second loss: a meta network weights auxiliary examples so that the base model does well on its task."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sama.hypergradient.program import Params
from sama.programs.weighted import LabelledBatch, Weighted


@dataclass(frozen=True)
class AuxiliaryBatch:
    """As many examples of the task as auxiliary ones."""

    task: LabelledBatch
    auxiliary: LabelledBatch


class Auxiliary(Weighted):
    """`L_base = mean_i ℓ_i(θ) + mean_j w_j(λ; ℓ'_j) ℓ'_j(θ)`, ℓ of the task, ℓ' auxiliary; `L_meta` is the task's loss.

    The paper's continued pretraining, where ℓ' is the masked-language-model loss; with a fixed w it is multitask
    learning (TARTAN, Dery et al., ICLR 2022). It is the weighting form with two losses a row, ℓ_i with weight 1 and
    ℓ'_i with w_i, hence batches of equal size. What the task's part adds to a perturbed evaluation is one forward.

    Args:
        model: base model, (inputs) -> logits of the task [batch, classes] and (inputs, "auxiliary") -> auxiliary
            logits, [batch, classes] or [batch, positions, classes] (`sama.networks.two_heads.TwoHeads`).
        network: meta network, ℓ' [batch, 1] -> weights [batch].
        normalize: divide the weights by their batch mean; then they cannot turn the auxiliary loss off as a whole.
    """

    def example_losses(self, base: Params, batch: AuxiliaryBatch) -> tuple[Tensor, Tensor]:
        """Losses [batch, 2] of the task and the auxiliary examples, and the latter's, detached, [batch, 1].

        Raises:
            ValueError: not as many auxiliary as task examples.
        """
        task, auxiliary = batch.task, batch.auxiliary
        of_task = cross_entropy(self.outputs(base, task.inputs), task.labels, reduction="none")
        of_auxiliary = mean_cross_entropy(self.outputs(base, auxiliary.inputs, "auxiliary"), auxiliary.labels)
        if len(of_task) != len(of_auxiliary):
            raise ValueError(f"expected {len(of_task)} auxiliary examples, as many as task's, got {len(of_auxiliary)}")
        return torch.stack([of_task, of_auxiliary], dim=-1), of_auxiliary.detach()[:, None]

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """Ones and the weights of the auxiliary examples [batch, 2]."""
        weights = self.normalized(self.raw_weights(meta, features))
        return torch.stack([torch.ones_like(weights), weights], dim=-1)

    def raw_weights(self, meta: Params, features: Tensor) -> Tensor:
        """What the meta network says of each auxiliary example by itself, [batch]."""
        return functional_call(self.network, dict(meta), (features,))


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each example [batch], its mean over the positions that have a label.

    Args:
        logits: [batch, classes] or [batch, positions, classes].
        labels: [batch] or [batch, positions]; −100 is no label, and an example without any has loss 0.
    """
    losses = cross_entropy(logits.movedim(-1, 1), labels, ignore_index=-100, reduction="none").reshape(len(labels), -1)
    labelled = (labels != -100).reshape(len(labels), -1).sum(dim=-1)
    return losses.sum(dim=-1) / labelled.clamp_min(1)
