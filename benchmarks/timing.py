"""Interleaved repeats: every candidate is timed once a round, so that what else the machine does meets all of them."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch


def interleaved(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    calls: int,
    device: str = "cpu",
    before: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Candidate -> seconds a call, one value a round: the mean over `calls` calls; the first round is not counted.

    Args:
        device: cuda waits for it before the clock is read.
        before: called before each candidate's turn (a barrier of processes).
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    gc.freeze()  # else each collection goes through all that torch has made when it was imported
    try:
        for _ in range(repeats + 1):
            for name, call in candidates.items():
                gc.collect()
                before()
                begin = _now(device)
                for _ in range(calls):
                    call()
                found[name].append((_now(device) - begin) / calls)
    finally:
        gc.unfreeze()
    return {name: values[1:] for name, values in found.items()}


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def quartiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """Columns NAME, NAME_q1 and NAME_q3: median and quartiles of the rounds."""
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return {name: middle, f"{name}_q1": low, f"{name}_q3": high}


def ratios(values: Sequence[float], to: Sequence[float]) -> list[float]:
    """Round by round, so that what slowed a whole round leaves the ratio alone."""
    return [value / other for value, other in zip(values, to, strict=True)]
