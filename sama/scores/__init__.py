"""Pruning scores, one file each; a score is float64 [n] over the training examples, higher = keep.

A score is a function of a `Context`, which trains the models that it asks for and counts what they cost, and of its own
knobs, by keyword; it computes in numpy, so that a score without models does not wait for torch to start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sama.scores.aum import aum
from sama.scores.context import Context
from sama.scores.dual import dual
from sama.scores.dyn_unc import dyn_unc
from sama.scores.el2n import el2n, el2n_reversed
from sama.scores.entropy import entropy
from sama.scores.forgetting import forgetting
from sama.scores.grand import grand
from sama.scores.margin import margin
from sama.scores.meta_weight import meta_weight
from sama.scores.prototype import prototype
from sama.scores.random import random
from sama.scores.tdds import tdds

__all__ = ["SCORES", "Context", "Score"]


@dataclass(frozen=True)
class Score:
    """A score and what the pipeline has to know of it.

    Attributes:
        compute: (context, **knobs) -> float64 [n], higher = keep.
        reads: what it needs of another stage: the meta weights, those of the loss-only network, the observed training.
        hard_end: where its difficult examples are; None where it does not order them by difficulty.
        noise_aware: made, or read, so that wrong labels get low scores.
    """

    compute: Callable[..., np.ndarray]
    reads: Literal["meta", "meta_loss", "observed"] | None = None
    hard_end: Literal["high", "low"] | None = None
    noise_aware: bool = False


SCORES: dict[str, Score] = {
    "meta_weight": Score(meta_weight, reads="meta", hard_end="low", noise_aware=True),
    "meta_weight_loss": Score(meta_weight, reads="meta_loss", hard_end="low", noise_aware=True),
    "random": Score(random),
    "el2n": Score(el2n, hard_end="high"),
    "el2n_reversed": Score(el2n_reversed, hard_end="low", noise_aware=True),
    "grand": Score(grand, hard_end="high"),
    "margin": Score(margin, hard_end="high"),
    "entropy": Score(entropy, hard_end="high"),
    "forgetting": Score(forgetting, reads="observed", hard_end="high"),
    "aum": Score(aum, reads="observed", hard_end="low", noise_aware=True),
    "dyn_unc": Score(dyn_unc, reads="observed"),
    "tdds": Score(tdds, reads="observed"),
    "dual": Score(dual, reads="observed"),
    "prototype": Score(prototype, reads="observed", hard_end="high"),
}
