"""Continued pretraining on the task's own texts: before finetuning (TAPT), beside it, or beside it by SAMA's weights.

The auxiliary loss is that of masked language modelling on the texts of the task's batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sama.finetuning.base import Context, Outcome, Phase, cost_of, together
from sama.meta_training import Watched, first_watched_step, make_loop, meta_cost, run_loop
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
    recipe, meta = context.recipe(context.steps), context.meta
    network = MetaWeightNetwork(1, context.hidden_size, scale=2.0).to(context.device)
    program = Auxiliary(context.model, network, normalize=False)

    def values(features: Tensor) -> Tensor:
        weights = program.raw_weights(dict(network.named_parameters()), features)
        return torch.stack([weights, features[:, 0]], dim=1)

    def both(inputs: Any, labels: Tensor, indices: Tensor) -> AuxiliaryBatch:
        masked = inputs["masked"]
        auxiliary = LabelledBatch(masked, masked["masked_labels"], indices)
        return AuxiliaryBatch(LabelledBatch(inputs["task"], labels, indices), auxiliary)

    watched = Watched(
        len(context.training),
        ("weight", "loss"),
        first_watched_step(recipe, context.score_from),
        values,
        indices=lambda batch: batch.task.indices,
    )

    def body(phase: Phase) -> None:
        loop = make_loop(
            program,
            context.model,
            network,
            PairedTexts(context.training, context.masked(context.training)),
            context.meta_set,
            recipe,
            meta,
            seed=context.seed,
            batch=both,
            meta_batch=LabelledBatch,
            device=context.device,
        )
        run_loop(
            loop,
            recipe,
            context.validation,
            device=context.device,
            watched=watched,
            log=phase.log,
            progress=phase.progress,
            resume=phase.resume,
            save=phase.save,
        )

    context.phases.run(recipe.steps, body)
    parameters = sum(p.numel() for p in context.model.parameters() if p.requires_grad)
    return Outcome(_cost(meta_cost(recipe, meta, teacher=False, parameters=parameters), context), watched.means())


def _cost(once: Cost, context: Context) -> Cost:
    """Of base batches that are twice as large as `meta_cost` counts them; meta batches are not."""
    meta_examples = context.steps // context.meta.unroll_steps * context.meta.batch_size
    base = Cost(once.forward_examples - meta_examples, once.backward_examples - meta_examples)
    return together(once, base)
