"""Continued pretraining on the task's own texts: before finetuning (TAPT), beside it, or beside it by SAMA's weights.

The auxiliary loss is that of masked language modelling on the texts of the task's batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama.finetuning.base import Context, Outcome, cost_of, together
from sama.finetuning.meta import meta_train, weight_and_loss
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.auxiliary import Auxiliary, AuxiliaryBatch, mean_cross_entropy
from sama.programs.reweight import LabelledBatch
from sama.texts import MaskedTexts, TextExamples
from sama.training import Cost


@dataclass(frozen=True)
class PairedTexts:
    """Texts that come twice in a batch: as they are, for the task, and masked. Inputs are {"task", "masked"}."""

    task: TextExamples
    masked: MaskedTexts

    @property
    def labels(self) -> Tensor:
        """Of the task."""
        return self.task.labels

    @property
    def ahead(self) -> int:
        """As the task's."""
        return self.task.ahead

    def __len__(self) -> int:
        return len(self.task)

    def order(self, batch_size: int) -> Callable[[Tensor, int], Tensor] | None:
        """As the task's."""
        return self.task.order(batch_size)

    def begin(
        self, indices: Tensor, device: torch.device, recipe: Any = None, generator: torch.Generator | None = None
    ) -> Callable[[], dict[str, Any]]:
        """Both forms of these texts."""
        task = self.task.begin(indices, device, recipe, generator)
        masked = self.masked.begin(indices, device, recipe, generator)
        return lambda: {"task": task(), "masked": masked()}

    def batches(
        self, batch_size: int, device: torch.device, *, rank: int = 0, world_size: int = 1, skip: int = 0
    ) -> Iterator[tuple[Tensor, Any]]:
        """Those of the task."""
        return self.task.batches(batch_size, device, rank=rank, world_size=world_size, skip=skip)


def tapt(context: Context) -> Outcome:
    """Masked language modelling for `pretraining_steps`, then finetuning (Gururangan et al., ACL 2020)."""

    def objective(forward: Callable[..., Tensor], inputs: Any, _: Tensor) -> tuple[Tensor, Tensor]:
        logits = forward(inputs, "auxiliary")
        return mean_cross_entropy(logits, inputs["masked_labels"]).mean(), logits

    recipe = context.recipe(context.settings.pretraining_steps)
    masked = context.masked(context.training)
    first = context.phases.train(context, masked, recipe, objective=objective, validated=False)
    second = context.phases.train(context, context.training, context.recipe(context.steps))
    return Outcome(together(first, second))


def multitask(context: Context) -> Outcome:
    """`mean ℓ + w mean ℓ'` with a fixed w."""
    weight = context.settings.auxiliary_weight

    def objective(forward: Callable[..., Tensor], inputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits, masked = forward(inputs["task"]), inputs["masked"]
        auxiliary = mean_cross_entropy(forward(masked, "auxiliary"), masked["masked_labels"]).mean()
        return cross_entropy(logits, labels) + weight * auxiliary, logits

    pairs = PairedTexts(context.training, context.masked(context.training))
    recipe = context.recipe(context.steps)
    cost = context.phases.train(context, pairs, recipe, objective=objective)
    return Outcome(together(cost, cost_of(recipe)))


def meta_auxiliary(context: Context) -> Outcome:
    """`mean ℓ + mean w(λ; ℓ'_j) ℓ'_j`: the paper's continued pretraining; weights start at 1."""
    network = MetaWeightNetwork(1, context.hidden_size, scale=2.0).to(context.device)
    program = Auxiliary(context.model, network, normalize=False)

    def both(inputs: Any, labels: Tensor, indices: Tensor) -> AuxiliaryBatch:
        masked = inputs["masked"]
        auxiliary = LabelledBatch(masked, masked["masked_labels"], indices)
        return AuxiliaryBatch(LabelledBatch(inputs["task"], labels, indices), auxiliary)

    found = meta_train(
        context,
        context.meta,
        program,
        network,
        ("weight", "loss"),
        weight_and_loss(program),
        training=PairedTexts(context.training, context.masked(context.training)),
        batch=both,
        indices=lambda batch: batch.task.indices,
    )
    return replace(found, cost=_cost(found.cost, context))


def _cost(once: Cost, context: Context) -> Cost:
    """Of base batches that are twice as large as `meta_cost` counts them; meta batches are not."""
    meta_examples = context.steps // context.meta.unroll_steps * context.meta.batch_size
    base = Cost(once.forward_examples - meta_examples, once.backward_examples - meta_examples)
    return together(once, base)
