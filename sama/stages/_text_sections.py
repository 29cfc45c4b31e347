"""The sections of the configuration that a training on texts takes, as one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sama.config import FinetuningConfig, TextDataConfig, TextMetaConfig, TextModelConfig, TextRecipeConfig, merge
from sama.data.text_manifest import TextDataset
from sama.errors import SamaError
from sama.files import read_json, sha256

TUNED = ("training", "meta", "finetuning")


@dataclass(frozen=True)
class Sections:
    """Five sections, by their keys."""

    data: TextDataConfig
    model: TextModelConfig
    training: TextRecipeConfig
    meta: TextMetaConfig
    finetuning: FinetuningConfig

    def tuned(self, candidate: Mapping[str, Any]) -> "Sections":
        """The sections with a candidate of the grid laid over those that it names."""
        sections = {name: getattr(self, name) for name in TUNED}
        return replace(
            self,
            **{
                name: type(section).model_validate(merge(section.model_dump(mode="json"), candidate.get(name, {})))
                for name, section in sections.items()
            },
        )

    def key(self, stage: str, seed: int, dataset: TextDataset, method: str) -> str:
        """Content hash of what a training depends on but its code; of other methods nothing goes in."""
        said = {field.name: getattr(self, field.name).model_dump(mode="json") for field in fields(self)}
        del said["finetuning"]["methods"]
        return sha256(stage, str(seed), dataset.content_hash, method, json.dumps(said, sort_keys=True))


def chosen(tuning: Path) -> dict[str, Any]:
    """The candidate that `sama tune` chose.

    Raises:
        SamaError: the file is missing or damaged.
    """
    found = read_json(tuning)
    try:
        return found["candidates"][found["chosen"]]["overlay"]
    except (KeyError, IndexError, TypeError) as error:
        raise SamaError(f"{tuning}: expected the candidates of `sama tune` and which is chosen") from error
