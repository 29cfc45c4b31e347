"""What a score may ask for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sama.scores.dynamics import Dynamics


@dataclass(frozen=True)
class Context:
    """The n training examples, and what trained models say of them; each call counts what it costs.

    Every array has the examples in the order of `sample_ids`, on its last axis or, where they have features, its first.

    Attributes:
        sample_ids: str [n], unique.
        labels: int64 [n], observed.
        seed: of the replicate.
        train_models: (models, steps) -> logits float64 [models, n, classes] of that many independently initialised
            models after that many optimizer steps.
        gradient_norms: (models, steps) -> float64 [models, n], 2-norm of the gradient of each example's own loss by all
            parameters of such models.
        dynamics: (epochs) -> what one observed training saw in its first `epochs` visits of every example, or in all of
            them where `epochs` is None.
        features: () -> float32 [n, d], penultimate features of the observed model at its end.
        meta_weights: () -> mean importance weight [n] from meta training.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    seed: int
    train_models: Callable[[int, int], np.ndarray]
    gradient_norms: Callable[[int, int], np.ndarray]
    dynamics: Callable[[int | None], Dynamics]
    features: Callable[[], np.ndarray]
    meta_weights: Callable[[], np.ndarray]
