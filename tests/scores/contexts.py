"""A `Context` from plain arrays: what the models would say is given."""

from typing import Any

import numpy as np

from sama.scores import Context, Dynamics


def dynamics(probability: Any = None, *, margin: Any = None, divergence: Any = None) -> Dynamics:
    """Rows are visits; what is not given is NaN."""
    given = [np.asarray(a, dtype=np.float32) for a in (probability, margin, divergence) if a is not None]
    arrays = [probability, margin, divergence]
    return Dynamics(*(np.full_like(given[0], np.nan) if a is None else np.asarray(a, dtype=np.float32) for a in arrays))


def context(
    *,
    labels: Any,
    logits: Any = None,
    norms: Any = None,
    observed: Dynamics | None = None,
    features: Any = None,
    weights: Any = None,
    seed: int = 0,
    sample_ids: Any = None,
) -> tuple[Context, list[Any]]:
    """The context, and the list of what was asked for."""
    asked: list[Any] = []

    def say(name: str, value: Any) -> Any:
        def answer(*arguments: Any) -> Any:
            asked.append((name, *arguments))
            if value is None:
                raise AssertionError(f"{name} was not given")
            return value.first(*arguments) if isinstance(value, Dynamics) else np.array(value)

        return answer

    labels = np.asarray(labels)
    ids = [f"x/{k:03d}" for k in range(len(labels))] if sample_ids is None else sample_ids
    made = Context(
        sample_ids=np.asarray(ids),
        labels=labels,
        seed=seed,
        train_models=say("logits", logits),
        gradient_norms=say("norms", norms),
        dynamics=say("dynamics", observed),
        features=say("features", features),
        meta_weights=say("weights", weights),
    )
    return made, asked
