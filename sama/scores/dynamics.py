"""Statistics of training dynamics in a sliding window."""

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def over_windows(values: np.ndarray, window: int, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`statistic` of each `window` successive rows of `values` [rows, n] -> [rows − window + 1, n], in float64.

    `statistic` takes [n, window] to [n]; one window at a time is held in float64.

    Raises:
        ValueError: there are fewer rows than the window has.
    """
    if window > len(values):
        raise ValueError(f"expected a window of at most {len(values)} observations of an example, got {window}")
    windows = sliding_window_view(values, window, axis=0)  # [rows − window + 1, n, window]
    return np.stack([statistic(each.astype(np.float64)) for each in windows])
