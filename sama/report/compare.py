"""Mean, spread and paired comparison over seeds: what may be claimed, and what may not.

Seeds are paired: every method of one seed sees the same split and the same planted noise. A difference is called
clear if at least `MIN_SEEDS` seeds were run and the 95 % t-interval of the mean paired difference leaves zero out.
No correction is made for the number of comparisons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_SEEDS = 3


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for one seed) of one value a seed."""

    mean: float
    sd: float | None
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Summarise one value a seed."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("expected at least one value, got none")
    sd = float(array.std(ddof=1)) if array.size > 1 else None
    return Spread(float(array.mean()), sd, array.size)


@dataclass(frozen=True)
class Comparison:
    """One value a seed against another one, paired by seed."""

    difference: Spread
    higher_on: int
    lower_on: int
    clear: bool

    @property
    def sign(self) -> int:
        """+1 or -1 where the difference is clear, 0 where the spread over seeds does not allow to say."""
        return int(np.sign(self.difference.mean)) if self.clear else 0


def paired(values: Sequence[float], others: Sequence[float]) -> Comparison:
    """`values - others`, seed by seed."""
    if len(values) != len(others):
        raise ValueError(f"expected as many values as others, got {len(values)} and {len(others)}")
    gaps = np.asarray(values, dtype=np.float64) - np.asarray(others, dtype=np.float64)
    difference = spread(list(gaps))
    return Comparison(difference, int((gaps > 0).sum()), int((gaps < 0).sum()), _clear(difference))


def _clear(difference: Spread) -> bool:
    if difference.sd is None or difference.n < MIN_SEEDS:
        return False
    half_width = float(stats.t.ppf(0.975, difference.n - 1)) * difference.sd / difference.n**0.5
    return abs(difference.mean) > half_width


def differs_from(values: Sequence[float], constant: float) -> int:
    """+1 or -1 if the mean is clearly above or below `constant` (same rule), else 0."""
    return paired(values, [constant] * len(values)).sign


@dataclass(frozen=True)
class Leader:
    """The highest mean among several methods, the runner-up, and whether the lead is clear against every other one."""

    name: str
    second: str | None
    lead: Comparison | None
    clear: bool


def leader(values: Mapping[str, Sequence[float]]) -> Leader:
    """Who has the highest mean, and may it be called the best?"""
    order = sorted(values, key=lambda name: -float(np.mean(values[name])))
    first, others = order[0], order[1:]
    if not others:
        return Leader(first, None, None, False)
    leads = [paired(values[first], values[name]) for name in others]
    return Leader(first, others[0], leads[0], all(lead.sign > 0 for lead in leads))
