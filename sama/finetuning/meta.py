"""SAMA on weak labels: reweighting (R), and reweighting with correction (R&C)."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sama.finetuning.base import Context, Outcome, Phase
from sama.meta_training import MetaRecipe, Options, Watched, first_watched_step, make_loop, meta_cost, run_loop
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.correct import Correct
from sama.programs.reweight import LabelledBatch, Reweight


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

    def values(features: Tensor) -> Tensor:
        weights = program.raw_weights(dict(network.named_parameters()), features)
        return torch.stack([weights, features[:, 0]], dim=1)

    return _meta_train(context, meta, program, network, ("weight", "loss"), values)


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
    return _meta_train(context, context.meta, program, network, names, values)


def _meta_train(
    context: Context, meta: MetaRecipe, program: Any, network: torch.nn.Module, names: tuple[str, ...], values: Any
) -> Outcome:
    recipe = context.recipe(context.steps)
    watched = Watched(
        len(context.training),
        names,
        first_watched_step(recipe, context.score_from),
        values,
    )

    def body(phase: Phase) -> None:
        if recipe.compile:
            program.compile()
        loop = make_loop(
            program,
            context.model,
            network,
            context.training,
            context.meta_set,
            recipe,
            meta,
            seed=context.seed,
            batch=LabelledBatch,
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
    return Outcome(meta_cost(recipe, meta, teacher=False, parameters=parameters), watched.means())
