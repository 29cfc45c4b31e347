"""Beta sampling: a draw by score and by difficulty, of easier examples the more is pruned."""

import numpy as np


def beta(
    scores: np.ndarray,
    probability: np.ndarray,
    ticket: np.ndarray,
    budget: int,
    *,
    pruning_ratio: float,
    concentration: float,
    power: float,
    seed: int,
) -> np.ndarray:
    """Examples drawn without replacement, each time in proportion to `Beta(P_i; α, β) · s_i` among those that are left.

    `β = C (1 − μ) (1 − r^c)`, `α = C + 1 − β`, with `P_i` the mean probability of the observed label in training, `r`
    the pruning ratio, `C` the concentration, `c` the power and `μ` the mean `P` of the ten highest scores: at a low
    ratio the draw centres where the scores are high, at a high one on easy examples.

    Cho et al., "Lightweight Dataset Pruning without Full Training via Example Difficulty and Prediction Uncertainty",
    ICML 2025, as in the authors' code. Drawn as the highest `ln w_i + g_i` with Gumbel noise `g_i` by seed and lot,
    which is the same distribution.

    Args:
        scores: float [n], at least 0.
        probability: float [n], P.
        ticket: int [n], lots.
        budget: how many stay.
        pruning_ratio: r in (0, 1).
        concentration: C.
        power: c.
        seed: of the draw.

    Returns:
        Mask [n].

    Raises:
        ValueError: a score is negative, or a probability is not in [0, 1].
    """
    if scores.min() < 0:
        raise ValueError(f"beta draws in proportion to the scores, expected none below 0, got {scores.min():.4g}")
    if not (np.isfinite(probability).all() and probability.min() >= 0 and probability.max() <= 1):
        raise ValueError("beta expects the mean probability of every label in [0, 1]")
    order = np.argsort(ticket)  # nothing depends on the order of the rows
    values, mean = scores[order].astype(np.float64), probability[order].astype(np.float64)
    leaders = np.argsort(values, kind="stable")[-10:]
    b = concentration * (1 - mean[leaders].mean()) * (1 - pruning_ratio**power)
    a = concentration + 1 - b
    with np.errstate(divide="ignore", invalid="ignore"):
        # the normalising constant of the density is the same for all
        log_weight = np.log(values) + (a - 1) * np.log(mean) + (b - 1) * np.log1p(-mean)
    noise = np.random.default_rng([seed, 0xBE7A]).gumbel(size=len(values))
    keys = np.nan_to_num(log_weight, nan=-np.inf, posinf=np.inf, neginf=-np.inf) + noise
    mask = np.zeros(len(values), dtype=bool)
    mask[order[np.argsort(keys, kind="stable")[len(values) - budget :]]] = True
    return mask
