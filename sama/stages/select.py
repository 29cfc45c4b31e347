"""From scores to the ids that are kept."""

from pathlib import Path

import numpy as np
import pandas as pd

from sama.config import SelectionConfig
from sama.data.manifest import read_manifest, split_rows
from sama.errors import SamaError
from sama.files import read_facts, write_parquet
from sama.selection import keep
from sama.stages._arrays import read_array, read_column, read_visits


def run(
    *,
    scores: Path,
    manifest: Path,
    features: Path | None = None,
    dynamics: Path | None = None,
    ratio: float,
    out: Path,
    seed: int = 0,
    selection: SelectionConfig,
) -> None:
    """Keep the examples that the strategy chooses by their scores, and write their sample ids.

    Args:
        scores: parquet file of `sama score`.
        manifest: manifest.parquet of the seed, for the observed labels.
        features: features.safetensors of `sama observe`; needed by the strategy d2.
        dynamics: dynamics.safetensors of `sama observe`; needed by the strategy beta.
        ratio: pruning ratio, the fraction removed, in (0, 1).
        out: parquet file of the kept sample ids, sorted; it remembers which data they are of.
        seed: of the replicate; decides between equal scores.
        selection: the strategy and its knobs.

    Raises:
        SamaError: the ratio is outside (0, 1), the scores are not those of the training split, or the strategy lacks
            what it needs.
    """
    table = read_manifest(manifest)
    train = table.iloc[split_rows(table["split"].to_numpy(str), "train", where=manifest)]
    ids = train["sample_id"].to_numpy(str)
    values, facts = read_column(scores, "score", ids, manifest), read_facts(scores)
    strategy = selection.strategy
    options = dict(getattr(selection, strategy, None) or {})
    epochs = options.pop("epochs", None)
    if strategy == "stratified" and "hard_end" not in facts:
        raise SamaError(f"{scores}: does not say where its hard examples are: make it by sama score")
    if strategy == "d2" and features is None:
        raise SamaError("selection.strategy d2 needs --features, the features.safetensors of observe")
    if strategy == "beta" and dynamics is None:
        raise SamaError("selection.strategy beta needs --dynamics, the dynamics.safetensors of observe")
    hard_end = facts.get("hard_end", "none")
    visits = None
    if dynamics is not None:
        visits = read_visits(dynamics, ids, "probability", epochs, f"selection.{strategy}")
    try:
        kept = keep(
            values,
            train["label"].to_numpy(np.int64),
            ids,
            pruning_ratio=ratio,
            strategy=strategy,
            seed=seed,
            hard_end=None if hard_end == "none" else hard_end,
            features=None if features is None else read_array(features, ids, "features"),
            probability=None if visits is None else visits.mean(axis=0),
            options=options,
        )
    except ValueError as error:
        raise SamaError(f"{scores}: {error}") from error
    write_parquet(out, pd.DataFrame({"sample_id": ids[kept]}), {"data": facts["data"]} if "data" in facts else None)
