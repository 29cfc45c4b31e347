"""Self-training from weak labels, in the manner of COSINE (Yu et al., NAACL 2021, arXiv:2010.07835).

After a start on the weak labels, rounds of: soft pseudo-labels of all training texts by the model itself,

    q_ic = p_ic² / f_c, normalised over c,    f_c = Σ_i p_ic,

weighted by confidence ω_i = 1 − H(q_i) / log C, zero below the threshold, and training on

    mean_i ω_i CE(q_i, p_i)  +  s · mean_i ω_i KL(u, p_i)  +  c · contrast.

The contrast, over neighbouring pairs of a batch with representations x, is d² if their pseudo-classes agree and
max(0, margin − d)² if not, d² = |x_i − x_j|² / dimension. What differs from the paper: pseudo-labels are made once a
round, not by a schedule of their own; rounds share the learning-rate schedule of a phase each; and where the best
weights are kept (`training.keep`), each round starts from those that did best on validation so far, not from the last
ones. The rounds are not compiled (`training.compile`).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, relu

from sama.finetuning.base import Context, Outcome, Phase, cost_of, together
from sama.programs.correct import input_of
from sama.training import Cost, predict, train


def self_training(context: Context) -> Outcome:
    """Weak labels for `start` of the steps, then `rounds` of pseudo-labels over the others."""
    knobs = context.settings.self_training
    start = max(1, round(knobs.start * context.steps))
    rest = max(knobs.rounds, context.steps - start)
    costs = [context.phases.train(context, context.training, context.recipe(start))]
    for number in range(knobs.rounds):
        steps = rest // knobs.rounds + (number < rest % knobs.rounds)
        costs.append(_round(context, steps))
    return Outcome(together(*costs))


def _round(context: Context, steps: int) -> Cost:
    recipe = context.recipe(steps)

    def carry() -> dict[str, Tensor]:
        logits = predict(context.model, context.training, context.device)
        return {"targets": pseudo_labels(logits.softmax(dim=-1), context.settings.self_training.threshold)}

    def body(phase: Phase) -> None:
        train(
            context.model,
            replace(context.training, labels=phase.carried["targets"]),
            recipe,
            seed=context.seed,
            device=context.device,
            validation=context.validation,
            objective=_objective(context),
            **phase.hooks,
        )

    context.phases.run(recipe.steps, body, carry=carry)
    return together(cost_of(recipe), Cost(forward_examples=len(context.training)))


def pseudo_labels(probabilities: Tensor, threshold: float) -> Tensor:
    """`ω_i q_i` [n, classes] of the model's probabilities; where no text reaches the threshold, the surest does."""
    sharpened = probabilities.square() / probabilities.sum(dim=0).clamp_min(1e-12)
    targets = sharpened / sharpened.sum(dim=-1, keepdim=True)
    entropy = -(targets * targets.clamp_min(1e-12).log()).sum(dim=-1)
    confidence = 1 - entropy / math.log(targets.shape[-1])
    sure = confidence >= min(threshold, confidence.max().item())
    return targets * (confidence * sure)[:, None]


def _objective(context: Context) -> Callable[[Callable[..., Tensor], Any, Tensor], tuple[Tensor, Tensor]]:
    knobs = context.settings.self_training

    def objective(_: Callable[..., Tensor], inputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        with input_of(context.model.head) as seen:
            logits = context.model(inputs)  # not compiled: what was compiled without this hook does not call it
        return losses(logits, seen[0], targets, knobs.smoothness, knobs.contrast, knobs.margin), logits

    return objective


def losses(
    logits: Tensor, representation: Tensor, targets: Tensor, smoothness: float, contrast: float, margin: float
) -> Tensor:
    """The loss of a batch: logits [batch, classes], representation [batch, d], targets `ω q` [batch, classes]."""
    weight = targets.sum(dim=-1)
    to_uniform = -log_softmax(logits, dim=-1).mean(dim=-1) - math.log(logits.shape[-1])  # KL(u, p)
    total = cross_entropy(logits, targets) + smoothness * (weight * to_uniform).mean()
    if contrast == 0 or len(logits) < 2:
        return total
    squared = (representation - representation.roll(1, dims=0)).square().mean(dim=-1)
    classes = targets.argmax(dim=-1)
    alike = classes == classes.roll(1)
    apart = relu(margin - squared.clamp_min(1e-12).sqrt()).square()
    pairs = torch.where(alike, squared, apart) * (weight > 0) * (weight.roll(1) > 0)
    return total + contrast * pairs.mean()
