"""A phase of SAMA; on weak labels: reweighting (R), and reweighting with correction (R&C)."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from sama.finetuning.base import Context, Outcome, Phase
from sama.meta_training import MetaRecipe, Options, Watched, first_watched_step, make_loop, meta_cost, run_loop
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.auxiliary import Auxiliary
from sama.programs.correct import Correct
from sama.programs.reweight import LabelledBatch, Reweight
from sama.programs.weighted import Weighted
from sama.training import Examples


@dataclass(frozen=True)
class WithoutAdaptation:
    """A meta recipe with the method `sama_na`."""

    alpha: float
    options: Options
    unroll_steps: int
    learning_rate: float
    batch_size: int
    accumulate: int
    clip_norm: float | None
    method: str = "sama_na"


def reweight(context: Context) -> Outcome:
    """R: `L_base = mean_i w(λ; ℓ_i) ℓ_i`, the meta weight network on the loss of the weak label."""
    return _reweight(context, context.meta)


def reweight_na(context: Context) -> Outcome:
    """R by SAMA-NA: the hypergradient leaves the adaptation to the base optimizer out."""
    names = (field.name for field in fields(WithoutAdaptation) if field.name != "method")
    return _reweight(context, WithoutAdaptation(**{name: getattr(context.meta, name) for name in names}))


def _reweight(context: Context, meta: MetaRecipe) -> Outcome:
    network = MetaWeightNetwork(1, context.hidden_size).to(context.device)
    program = Reweight(context.model, network, features=("loss",), teacher=None, normalize=context.normalize)
    return meta_train(context, meta, program, network, ("weight", "loss"), weight_and_loss(program))


def reweight_and_correct(context: Context) -> Outcome:
    """R&C: a correction network, which sees the representation and the weak label, and a weight network on the loss."""
    model = context.model
    correction = CorrectionNetwork(model.representation_size, context.classes, context.hidden_size)
    network = CorrectAndWeight(correction, MetaWeightNetwork(1, context.hidden_size)).to(context.device)
    program = Correct(model, network, classes=context.classes, head=model.head, normalize=context.normalize)

    def values(features: Tensor) -> Tensor:
        weights, labels = program.weights_and_labels(dict(network.named_parameters()), features)
        return torch.cat([weights[:, None], labels], dim=1)

    names = ("weight", *(f"corrected_{k}" for k in range(context.classes)))
    return meta_train(context, context.meta, program, network, names, values)


def meta_train(
    context: Context,
    meta: MetaRecipe,
    program: Weighted,
    network: nn.Module,
    names: tuple[str, ...],
    values: Callable[[Tensor], Tensor],
    *,
    training: Examples | None = None,
    batch: Callable[[Any, Tensor, Tensor], Any] = LabelledBatch,
    indices: Callable[[Any], Tensor] = lambda batch: batch.indices,
) -> Outcome:
    """A phase of bilevel training, which watches the numbers `names` of each training text.

    Args:
        context: whose model is trained.
        meta: the meta level.
        program, network: the two losses, and the module of λ.
        names, values, indices: of `Watched`.
        training: examples of the base level; None: the context's.
        batch: of the base level, as `make_loop` takes it.
    """
    recipe = context.recipe(context.steps)
    watched = Watched(len(context.training), names, first_watched_step(recipe, context.score_from), values, indices)

    def body(phase: Phase) -> None:
        if recipe.compile:
            program.compile()
        loop = make_loop(
            program,
            context.model,
            network,
            context.training if training is None else training,
            context.meta_set,
            recipe,
            meta,
            seed=context.seed,
            batch=batch,
            meta_batch=LabelledBatch,
            device=context.device,
        )
        run_loop(loop, recipe, context.validation, device=context.device, watched=watched, **phase.hooks)

    context.phases.run(recipe.steps, body)
    parameters = sum(p.numel() for p in context.model.parameters() if p.requires_grad)
    return Outcome(meta_cost(recipe, meta, teacher=False, parameters=parameters), watched.means())


def weight_and_loss(program: Reweight | Auxiliary) -> Callable[[Tensor], Tensor]:
    """Features [batch, 1], the losses -> what the meta network says of each example and its loss, [batch, 2]."""

    def values(features: Tensor) -> Tensor:
        weights = program.raw_weights(dict(program.network.named_parameters()), features)
        return torch.stack([weights, features[:, 0]], dim=1)

    return values
