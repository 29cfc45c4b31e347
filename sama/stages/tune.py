"""Choose the hyperparameters of a method by its validation measure, out of its grid."""

from pathlib import Path

from sama.config import (
    FinetuningConfig,
    RuntimeConfig,
    TextDataConfig,
    TextMetaConfig,
    TextModelConfig,
    TextRecipeConfig,
    TuningConfig,
)
from sama.data.text_manifest import load
from sama.errors import SamaError
from sama.files import read_json, sha256, write_json
from sama.finetuning import METHODS
from sama.stages._common import Run, device_of
from sama.stages._keys import source_hash
from sama.stages._text_sections import Sections
from sama.stages._texts import Texts, train_method


def run(
    *,
    texts: Path,
    manifests: Path,
    data_root: Path | None = None,
    method: str,
    out: Path,
    work: Path,
    data: TextDataConfig,
    model: TextModelConfig,
    training: TextRecipeConfig,
    meta: TextMetaConfig,
    finetuning: FinetuningConfig,
    tuning: TuningConfig,
    runtime: RuntimeConfig,
) -> None:
    """Train every candidate of a method's grid and choose the one that does best on validation.

    The first of equals is chosen. Nothing is trained where the grid has one candidate. The test split is not read.

    Args:
        texts: texts.parquet of `sama prepare-texts`.
        manifests: folder of the manifests, seed{S}/manifest.parquet.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        method: which.
        out: JSON file of the candidates, their measures, and the one that is chosen.
        work: folder of the trainings in progress; an interrupted run continues from it.
        data: the measure, and which weak labels are learned from.
        model: the encoder.
        training: the recipe.
        meta: the meta level of meta methods.
        finetuning: what is special to a method.
        tuning: the grids, and the seeds that candidates are compared on.
        runtime: threads and device.

    Raises:
        SamaError: data, model and method do not fit. FloatingPointError: a loss is not finite.
    """
    if method not in METHODS:
        raise SamaError(f"unknown method {method!r}, expected one of {', '.join(METHODS)}")
    rows = [{"overlay": candidate, "validation": []} for candidate in tuning.candidates(method)]
    device = device_of(runtime)
    compared = rows if len(rows) > 1 else []
    datasets = {seed: load(texts, manifests / f"seed{seed}" / "manifest.parquet") for seed in tuning.seeds if compared}
    for position, row in enumerate(compared):
        sections = Sections(data, model, training, meta, finetuning).tuned(row["overlay"])
        for seed, dataset in datasets.items():
            key = sections.key("tune", seed, dataset, method)
            done = work / f"{sha256(key, source_hash())}.json"
            if not done.exists():
                with Run(work / f"candidate{position}_seed{seed}", key, device) as state:
                    source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
                    trained = train_method(
                        source,
                        method,
                        sections,
                        seed=seed,
                        device=device,
                        state=state,
                        description=f"tune {method} {position + 1}/{len(rows)}",
                    )
                    write_json(done, {"validation": trained.validation})
                    state.drop()
            row["validation"].append(read_json(done)["validation"])
    means = [sum(row["validation"]) / max(1, len(row["validation"])) for row in rows]
    write_json(
        out,
        {
            "method": method,
            "seeds": list(tuning.seeds),
            "measure": data.measure,
            "candidates": rows,
            "chosen": max(range(len(rows)), key=lambda k: (means[k], -k)),
        },
    )
    for leftover in work.glob("*.json"):
        leftover.unlink()
