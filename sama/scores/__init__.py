"""Pruning scores, one file each; a score is float64 [n] over the training examples, higher = keep.

A score is a function of a `Context`, which trains the models that it asks for and counts what they cost; it computes
in numpy, so that a score without models does not wait for torch to start.
"""

from collections.abc import Callable

import numpy as np

from sama.scores.context import Context
from sama.scores.el2n import el2n
from sama.scores.margin import margin
from sama.scores.meta_weight import meta_weight
from sama.scores.random import random

__all__ = ["SCORES", "Context"]

SCORES: dict[str, Callable[[Context], np.ndarray]] = {
    "meta_weight": meta_weight,
    "random": random,
    "el2n": el2n,
    "margin": margin,
}
