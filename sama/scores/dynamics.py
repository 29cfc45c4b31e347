"""Training dynamics: what a model said of each example at each visit while it learned."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


@dataclass(frozen=True)
class Dynamics:
    """Arrays float32 [visits, n]; a visit is one presentation in training, so row t is the t-th epoch of each example.

    Attributes:
        probability: of the observed label, `p_y`.
        margin: `z_y − max_{c≠y} z_c` of the logits.
        divergence: `KL(p_t ‖ p_{t−1})` between the predictions at this visit and the one before; NaN in the first row.
    """

    probability: np.ndarray
    margin: np.ndarray
    divergence: np.ndarray

    @property
    def visits(self) -> int:
        """How often each example was seen."""
        return len(self.margin)

    @property
    def correct(self) -> np.ndarray:
        """Bool [visits, n]: the observed label alone had the largest logit."""
        return self.margin > 0

    def first(self, epochs: int | None) -> "Dynamics":
        """The first `epochs` visits, or all where it is None.

        Raises:
            ValueError: there are fewer.
        """
        if epochs is None:
            return self
        if epochs > self.visits:
            raise ValueError(
                f"expected at most the {self.visits} whole epochs of the observed training, got epochs = {epochs}:"
                " lower it, or observe more steps"
            )
        return Dynamics(self.probability[:epochs], self.margin[:epochs], self.divergence[:epochs])


def over_windows(values: np.ndarray, window: int, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`statistic` of each `window` successive rows of `values` [rows, n] -> [rows − window + 1, n], in float64.

    `statistic` takes [n, window] to [n]; one window is handled at a time, so memory stays O(n · window).

    Raises:
        ValueError: there are fewer rows than the window has.
    """
    if window > len(values):
        raise ValueError(f"expected a window of at most {len(values)} observations of an example, got {window}")
    windows = sliding_window_view(values, window, axis=0)  # [rows − window + 1, n, window]
    return np.stack([statistic(each.astype(np.float64)) for each in windows])
