"""Finetuning on one set of labels, or on weak ones and then on clean ones: the baselines."""

from sama.finetuning.base import Context, Outcome, together


def finetune(context: Context) -> Outcome:
    """Ordinary finetuning on the training texts with the labels that the method reads."""
    return Outcome(context.phases.train(context, context.training, context.recipe(context.steps)))


majority_vote = dawid_skene = clean_only = finetune
"""They differ in the labels alone: see the registry."""


def weak_then_clean(context: Context) -> Outcome:
    """Finetuning on weak labels, then, with a schedule of its own, on the clean meta set: `clean_share` of the steps.

    The strong baseline of Zhu et al., "Weaker than you think" (ACL 2023): clean labels that serve to choose or to
    weight models can be trained on as well.
    """
    clean = max(1, round(context.settings.clean_share * context.steps))
    weak = max(1, context.steps - clean)
    first = context.phases.train(context, context.training, context.recipe(weak))
    second = context.phases.train(context, context.meta_set, context.recipe(clean))
    return Outcome(together(first, second))
