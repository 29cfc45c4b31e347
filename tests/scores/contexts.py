"""A `Context` from plain arrays: what the models would say is given."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sama.scores import Context


def context(
    *,
    labels: Any,
    logits: Any = None,
    norms: Any = None,
    features: Any = None,
    weights: Any = None,
    seed: int = 0,
    sample_ids: Any = None,
    batch_size: int = 2,
    **dynamics: Any,
) -> tuple[Context, list[Any]]:
    """The context, and the list of what was asked for; `probability`, `margin` and `divergence` [visits, n] besides."""
    asked: list[Any] = []
    labels = np.asarray(labels)

    def given(name: str, value: Any, *arguments: Any) -> np.ndarray:
        asked.append((name, *arguments))
        if value is None:
            raise AssertionError(f"{name} was not given")
        return np.array(value, dtype=np.float64)

    def of_models(models: int, steps: int, reduce: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        whole = given("logits", logits, models, steps)
        cuts = range(0, len(labels), batch_size)
        batches = [(slice(k, k + batch_size), labels[k : k + batch_size]) for k in cuts]
        return np.stack([np.concatenate([reduce(one[rows], own) for rows, own in batches]) for one in whole])

    def visits(name: str, epochs: int | None) -> np.ndarray:
        return given(name, dynamics.get(name), epochs)[:epochs].astype(np.float32)

    made = Context(
        sample_ids=np.asarray([f"x/{k:03d}" for k in range(len(labels))] if sample_ids is None else sample_ids),
        labels=labels,
        seed=seed,
        of_models=of_models,
        gradient_norms=lambda models, steps: given("norms", norms, models, steps),
        dynamics=visits,
        features=lambda encoder, weights: given("features", features, encoder, weights),
        meta_weights=lambda: given("weights", weights),
    )
    return made, asked
