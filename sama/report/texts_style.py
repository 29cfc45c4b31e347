"""What the methods of finetuning on texts are called, and how they are drawn: one look a method everywhere."""

from collections.abc import Sequence
from dataclasses import replace

from sama.report.style import Look

HYPERGRADIENTS = {
    "sama": "SAMA",
    "sama_na": "SAMA-NA",
    "darts": "DARTS",
    "neumann": "Neumann series",
    "cg": "conjugate gradients",
    "itd": "iterative differentiation",
    "exact": "exact hypergradient",
}
_DASHED, _MIXED = (0, (5, 1.6)), (0, (6, 1.5, 1.2, 1.5))
_LOOKS = {
    "majority_vote": Look("majority vote", "#7f7f7f", "s"),
    "dawid_skene": Look("Dawid–Skene", "#8a5a2b", "D", _DASHED),
    "clean_only": Look("clean set only", "#009e73", "^"),
    "weak_then_clean": Look("weak, then clean", "#e69f00", "v", _DASHED),
    "self_training": Look("self-training (COSINE-like)", "#882255", "P", _MIXED),
    "meta_r": Look("{} R", "#0072b2", "o"),
    "meta_r_na": Look("SAMA-NA R", "#56b4e9", "o", _DASHED, hollow=True),
    "meta_rc": Look("{} R&C", "#d55e00", "X", _MIXED),
    "finetune": Look("finetuning", "#7f7f7f", "s"),
    "tapt": Look("TAPT", "#009e73", "^"),
    "multitask": Look("multitask, fixed weight", "#e69f00", "v", _DASHED),
    "meta_auxiliary": Look("{} auxiliary", "#0072b2", "o"),
}
MEASURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "micro_f1": "micro F1", "binary_f1": "F1"}
AGGREGATIONS = {"majority_vote": "majority vote", "dawid_skene": "Dawid–Skene", "label": "weak label of the source"}


def looks(methods: Sequence[str], hypergradient: str) -> dict[str, Look]:
    """A look for each method; meta methods bear the name of the `hypergradient` method that trained them."""
    name = HYPERGRADIENTS.get(hypergradient, hypergradient)
    return {method: replace(_LOOKS[method], label=_LOOKS[method].label.format(name)) for method in methods}
