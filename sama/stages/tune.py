"""Choose the hyperparameters of a method by its validation measure, out of its grid."""

from pathlib import Path
from typing import get_args

from sama.config import (
    FinetuningConfig,
    RuntimeConfig,
    TextDataConfig,
    TextMetaConfig,
    TextModelConfig,
    TextRecipeConfig,
    TuningConfig,
)
from sama.config.texts import TextMethod
from sama.errors import SamaError
from sama.files import write_json
from sama.stages._text_sections import Sections


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
    methods = get_args(TextMethod)
    if method not in methods:
        raise SamaError(f"unknown method {method!r}, expected one of {', '.join(methods)}")
    rows = [{"overlay": candidate, "validation": []} for candidate in tuning.candidates(method)]
    if len(rows) > 1:
        from sama.stages._candidates import measured  # torch, whose seconds a grid of one does not wait for

        sections = Sections(data, model, training, meta, finetuning)
        places = {"texts": texts, "manifests": manifests, "data_root": data_root, "work": work}
        overlays = [row["overlay"] for row in rows]
        found = measured(overlays, method, sections, seeds=tuning.seeds, runtime=runtime, **places)
        rows = [{"overlay": overlay, "validation": values} for overlay, values in zip(overlays, found, strict=True)]
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
