"""The texts that the tests of stages learn from: 96 of the synthetic corpus, with their votes, as JSON lines."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sama.config import TextsConfig, validate_any
from sama.data.texts.synthetic import FUNCTIONS, generate
from sama.stages import finetune, prepare_texts

SIZES = {"train": 60, "validation": 20, "test": 16}
CONFIG: dict[str, Any] = {
    "workload": "texts",
    "seeds": [0, 1],
    "data": {"source": "json_lines", "vote_columns": list(FUNCTIONS)},
    "model": {"max_length": 24, "vocabulary_size": 300, "hidden_size": 8, "layers": 1, "heads": 1, "dropout": 0.3},
    "training": {
        "steps": 12,
        "batch_size": 12,
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.01},
        "schedule": "linear",
        "warmup_steps": 2,
        "clip_norm": 1.0,
        "log_every": 3,
        "checkpoint_every": 5,
    },
    "meta": {"unroll_steps": 2, "batch_size": 8, "learning_rate": 0.01, "network": {"hidden_size": 5}},
    "finetuning": {"pretraining_steps": 6, "self_training": {"rounds": 2}},
    "runtime": {"device": "cpu"},
}


def config(**changes: Any) -> TextsConfig:
    """The configuration, with whole sections exchanged."""
    found = validate_any({**CONFIG, **changes})
    assert isinstance(found, TextsConfig)
    return found


def written(folder: Path, sizes: dict[str, int] | None = None) -> Path:
    """The corpus as a folder of JSON lines."""
    source = generate(7, sizes or SIZES)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in source.parts.items():
        assert part.votes is not None
        rows = [
            {
                "text": text,
                "label": source.class_names[label],
                **{f: None if vote < 0 else source.class_names[vote] for f, vote in zip(FUNCTIONS, votes, strict=True)},
            }
            for text, label, votes in zip(part.text, part.label.tolist(), part.votes.tolist(), strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def prepared(folder: Path, settings: TextsConfig | None = None, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """The folder `data` that the stage makes of it."""
    chosen = settings or config()
    written(folder / "source")
    return prepared_from(folder, chosen, seeds)


def prepared_from(folder: Path, settings: TextsConfig, seeds: tuple[int, ...] = (0, 1)) -> Path:
    """The folder `data` that the stage makes of the tables that stand in `source`."""
    data = settings.data.model_copy(update={"path": str(folder / "source")})
    prepare_texts.run(out=folder / "data", seeds=seeds, data_root=None, data=data, model=settings.model)
    return folder / "data"


def finetuned(
    data: Path, out: Path, method: str, settings: TextsConfig | None = None, **options: Any
) -> dict[str, bytes]:
    """The files that the stage makes in `out` of a prepared folder, by name; the seed is 0 unless said."""
    chosen = settings or config()
    given = {"seed": 0, "manifest": data / "seed0" / "manifest.parquet", **options}
    given |= {name: (given[name],) for name in ("seed", "manifest")}
    finetune.run(
        texts=data / "texts.parquet", method=method, out=(out,), work=out.with_name(out.name + "-work"),
        data=chosen.data, model=chosen.model, training=chosen.training, meta=chosen.meta,
        finetuning=chosen.finetuning, runtime=chosen.runtime, **given,
    )  # fmt: skip
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def with_data(finetuning: dict[str, Any] | None = None, **changes: Any) -> TextsConfig:
    """The configuration with some keys of `data` exchanged."""
    return config(data={**CONFIG["data"], **changes}, finetuning=finetuning or CONFIG["finetuning"])


def edited(part: Path, edit: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> None:
    """Write a JSON-lines table anew: `edit` gives the row of a number and a row, or None to leave it out."""
    rows = [json.loads(line) for line in part.read_text().splitlines()]
    found = [new for number, row in enumerate(rows) if (new := edit(number, row)) is not None]
    part.write_text("".join(json.dumps(row) + "\n" for row in found))
