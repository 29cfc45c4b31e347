"""What a score may ask for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Context:
    """The training examples seen through what a score needs of them.

    Attributes:
        sample_ids: str [n], sorted.
        labels: int64 [n], observed.
        seed: of the replicate.
        train_models: (models, steps) -> logits float64 [models, n, classes] of that many independently initialised
            models after that many optimizer steps; counts the cost.
        meta_weights: () -> mean importance weight [n] from meta training; counts the cost.
        models, steps: how many models the configuration gives this score, and how long they train.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    seed: int
    models: int
    steps: int
    train_models: Callable[[int, int], np.ndarray]
    meta_weights: Callable[[], np.ndarray]
