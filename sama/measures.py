"""What classifiers are judged by, accuracy and F1 of logits and labels, and how well a score finds wrong labels."""

from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sama.training import accuracy

Measure = Callable[[Tensor, Tensor], float]


def _f1(average: str) -> Measure:
    def measure(logits: Tensor, labels: Tensor) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(labels.numpy(), logits.argmax(dim=-1).numpy(), average=average, zero_division=0.0))  # pyright: ignore[reportArgumentType]

    return measure


MEASURES: MappingProxyType[str, Measure] = MappingProxyType(
    {
        "accuracy": accuracy,
        "macro_f1": _f1("macro"),  # the mean over the classes that occur, in labels or predictions
        "micro_f1": _f1("micro"),
        "binary_f1": _f1("binary"),  # of the second of two classes
    }
)


def measure_of(name: str) -> Measure:
    """The measure of this name: (logits [n, classes], labels int64 [n]) -> number in [0, 1].

    Raises:
        ValueError: there is none.
    """
    if name not in MEASURES:
        raise ValueError(f"expected a measure of {', '.join(MEASURES)}, got {name!r}")
    return MEASURES[name]


def detection(wrong: NDArray[np.bool_], suspicion: NDArray[np.float64]) -> dict[str, float] | None:
    """How well a high suspicion [n] finds the wrong labels [n]: `auc`, `average_precision`; None for none or all."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if not wrong.any() or wrong.all():
        return None
    return {
        "auc": float(roc_auc_score(wrong, suspicion)),
        "average_precision": float(average_precision_score(wrong, suspicion)),
    }
