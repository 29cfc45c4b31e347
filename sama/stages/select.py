"""From scores to the ids that are kept."""

from pathlib import Path

import numpy as np
import pandas as pd

from sama.config import SelectionConfig
from sama.data.manifest import read_manifest, split_rows
from sama.errors import SamaError
from sama.files import read_parquet, write_parquet
from sama.selection import keep


def run(*, scores: Path, manifest: Path, ratio: float, out: Path, selection: SelectionConfig) -> None:
    """Keep the highest scores and write their sample ids.

    Args:
        scores: parquet file of `sama score`.
        manifest: manifest.parquet of the seed, for the observed labels.
        ratio: pruning ratio, the fraction removed, in (0, 1).
        out: parquet file of the kept sample ids, sorted.
        selection: the strategy.

    Raises:
        SamaError: the ratio is outside (0, 1), or the scores are not those of the training split.
    """
    table = read_manifest(manifest)
    train = table.iloc[split_rows(table["split"].to_numpy(str), "train", where=manifest)]
    frame = read_parquet(scores, ["sample_id", "score"])
    ids = train["sample_id"].to_numpy(str)
    if not np.array_equal(frame["sample_id"].to_numpy(str), ids):
        raise SamaError(f"{scores}: its sample ids are not those of split train in {manifest}")
    try:
        kept = keep(
            frame["score"].to_numpy(np.float64),
            train["label"].to_numpy(np.int64),
            ids,
            pruning_ratio=ratio,
            strategy=selection.strategy,
        )
    except ValueError as error:
        raise SamaError(f"{scores}: {error}") from error
    write_parquet(out, pd.DataFrame({"sample_id": ids[kept]}))
