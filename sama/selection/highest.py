"""The highest scores, of all examples or of each class."""

import numpy as np


def highest(scores: np.ndarray, ticket: np.ndarray, budget: int) -> np.ndarray:
    """Mask [n] of the `budget` highest scores; of equal ones those with the higher ticket stay."""
    mask = np.zeros(len(scores), dtype=bool)
    mask[np.lexsort((ticket, scores))[len(scores) - budget :]] = True
    return mask


def class_balanced(scores: np.ndarray, labels: np.ndarray, ticket: np.ndarray, pruning_ratio: float) -> np.ndarray:
    """Mask [n] of the highest scores of each class; `round(pruning_ratio · n_c)` of its own n_c examples go."""
    _, counts = np.unique(labels, return_counts=True)
    order = np.lexsort((ticket, scores, labels))  # class by class, each from its lowest score
    place = np.arange(len(scores)) - np.repeat(np.cumsum(counts) - counts, counts)
    gone = np.repeat([round(pruning_ratio * count) for count in counts.tolist()], counts)
    mask = np.zeros(len(scores), dtype=bool)
    mask[order[place >= gone]] = True
    return mask
