"""The candidates of a grid, each trained and measured on validation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sama.config import RuntimeConfig
from sama.data.text_manifest import load
from sama.files import read_json, sha256, write_json
from sama.stages._common import Run, device_of
from sama.stages._keys import source_hash
from sama.stages._text_sections import Sections
from sama.stages._texts import Texts, train_method


def measured(
    candidates: Sequence[Mapping[str, Any]],
    method: str,
    sections: Sections,
    *,
    seeds: Sequence[int],
    texts: Path,
    manifests: Path,
    data_root: Path | None,
    work: Path,
    runtime: RuntimeConfig,
) -> list[list[float]]:
    """The validation measure of each candidate at each seed; what an interrupted run has measured is read from `work`.

    The arguments are those of `sama.stages.tune`.
    """
    device = device_of(runtime)
    datasets = {seed: load(texts, manifests / f"seed{seed}" / "manifest.parquet") for seed in seeds}
    found: list[list[float]] = []
    for position, candidate in enumerate(candidates):
        tuned = sections.tuned(candidate)
        found.append([])
        for seed, dataset in datasets.items():
            key = tuned.key("tune", seed, dataset, method)
            done = work / f"{sha256(key, source_hash())}.json"
            if not done.exists():
                with Run(work / f"candidate{position}_seed{seed}", key, device) as state:
                    trained = train_method(
                        Texts(dataset, sections.model, texts.parent / "tokenizer", data_root),
                        method,
                        tuned,
                        seed=seed,
                        device=device,
                        state=state,
                        description=f"tune {method} {position + 1}/{len(candidates)}",
                    )
                    write_json(done, {"validation": trained.validation})
                    state.drop()
            found[-1].append(read_json(done)["validation"])
    return found
