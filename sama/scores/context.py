"""What a score may ask for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Reduce = Callable[[np.ndarray, np.ndarray], np.ndarray]
Dynamic = Literal["probability", "margin", "divergence"]


@dataclass(frozen=True)
class Context:
    """The n training examples, and what trained models say of them; each call counts what it costs.

    Every array has the examples in the order of `sample_ids`, on its last axis or, where they have features, its first.
    Nothing that is handed out grows with the number of classes: the logits of a batch are reduced at once.

    Attributes:
        sample_ids: str [n], unique.
        labels: int64 [n], observed.
        seed: of the replicate.
        of_models: (models, steps, reduce) -> float64 [models, n], what `reduce` makes of the logits of that many
            independently initialised models after that many optimizer steps; `reduce` maps the logits float64
            [batch, classes] and the labels int64 [batch] of a batch to [batch], example by example.
        gradient_norms: (models, steps) -> float64 [models, n], 2-norm of the gradient of each example's own loss by all
            parameters of such models.
        dynamics: (name, epochs) -> float32 [visits, n], what one observed training saw in its first `epochs` visits of
            every example, or in all of them where `epochs` is None; a visit is one presentation in training, so row t
            is the t-th epoch of each example. `probability` is that of the observed label, `p_y`; `margin` is
            `z_y − max_{c≠y} z_c` of the logits; `divergence` is `KL(p_t ‖ p_{t−1})` between the predictions at this
            visit and the one before, NaN in the first row.
        features: (encoder, weights) -> float32 [n, d], penultimate features of the observed model at its end, or of
            the pretrained `encoder`, whose weights stand in the file `weights` or are published.
        meta_weights: () -> mean importance weight [n] from meta training.
    """

    sample_ids: np.ndarray
    labels: np.ndarray
    seed: int
    of_models: Callable[[int, int, Reduce], np.ndarray]
    gradient_norms: Callable[[int, int], np.ndarray]
    dynamics: Callable[[Dynamic, int | None], np.ndarray]
    features: Callable[[str | None, str | None], np.ndarray]
    meta_weights: Callable[[], np.ndarray]
