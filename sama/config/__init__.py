"""The configuration: one frozen model a section, the only place with defaults.

`load` merges overlays over the embedded defaults exactly as Snakemake merges config files (mappings key by key,
everything else replaced) and validates the result; errors are one line a problem: key, what is wrong, what it got.
"""

import difflib
import json
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from sama.config.base import Section
from sama.config.data import DataConfig, NoiseConfig, SplitConfig
from sama.config.meta import MetaConfig, MetaNetworkConfig, MethodOptions
from sama.config.model import ModelConfig
from sama.config.pruning import ObserveConfig, ProxyConfig, ScoresConfig, SelectionConfig
from sama.config.retrain import RetrainConfig
from sama.config.runtime import LauncherConfig, RuntimeConfig
from sama.config.training import AugmentConfig, OptimizerConfig, TrainingConfig
from sama.errors import SamaError

__all__ = [
    "AugmentConfig",
    "Config",
    "DataConfig",
    "LauncherConfig",
    "MetaConfig",
    "MetaNetworkConfig",
    "MethodOptions",
    "ModelConfig",
    "NoiseConfig",
    "ObserveConfig",
    "OptimizerConfig",
    "ProxyConfig",
    "RetrainConfig",
    "RuntimeConfig",
    "ScoresConfig",
    "SelectionConfig",
    "SplitConfig",
    "TrainingConfig",
    "dump_yaml",
    "json_schema",
    "load",
    "merge",
    "validate",
]


class Config(Section):
    """An experiment, whole."""

    experiment: str = Field(
        default="digits_pruning",
        pattern=r"^[a-z0-9][a-z0-9_]*$",
        description="name; results go to results/<experiment>/",
    )
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1, description="one independent replicate a seed"
    )
    data_root: str | None = Field(
        default=None, description="folder that holds the data sets; null: the environment's SAMA_DATA_DIR"
    )
    data: DataConfig = Field(default_factory=DataConfig, description="the examples")
    model: ModelConfig = Field(default_factory=ModelConfig, description="the base model")
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="the recipe of every ordinary training"
    )
    meta: MetaConfig = Field(default_factory=MetaConfig, description="SAMA meta training")
    observe: ObserveConfig = Field(default_factory=ObserveConfig, description="the training that some scores watch")
    scores: ScoresConfig = Field(default_factory=ScoresConfig, description="pruning scores")
    selection: SelectionConfig = Field(default_factory=SelectionConfig, description="which examples are kept")
    retrain: RetrainConfig = Field(default_factory=RetrainConfig, description="how long retrainings are")
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="threads and device")
    launcher: LauncherConfig = Field(default_factory=LauncherConfig, description="who carries the heavy stages")

    @model_validator(mode="after")
    def _observed(self) -> Self:
        """What a chosen method reads of the observed training is recorded: said before anything is trained."""
        methods, prototype = self.scores.methods, self.scores.prototype
        if "tdds" in methods and not self.observe.divergence:
            raise ValueError("observe.divergence is false, and scores.methods has tdds, which reads it: set it to true")
        signed = [method for method in methods if method in ("aum", "el2n_reversed")]
        if signed and self.selection.strategy == "beta":
            raise ValueError(
                f"selection.strategy beta draws in proportion to scores of at least 0, and scores.methods has"
                f" {signed[0]}: choose another strategy or leave it out"
            )
        if not self.observe.features:
            if self.selection.strategy == "d2":
                raise ValueError(
                    "observe.features is false, and selection.strategy is d2, which reads them: set it to true"
                )
            if "prototype" in methods and prototype.encoder is None:
                raise ValueError(
                    "observe.features is false, and scores.methods has prototype, which reads them: set it to true or"
                    " name a scores.prototype.encoder"
                )
        return self

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected distinct seeds, got {', '.join(map(str, value))}")
        if min(value) < 0 or max(value) >= 2**31:
            raise ValueError(f"expected seeds in 0..{2**31 - 1}, got {', '.join(map(str, value))}")
        return value

    @model_validator(mode="after")
    def _crops(self) -> Self:
        if self.data.storage != "encoded":
            for name, recipe in (("training", self.training), ("meta.training", self.meta.training)):
                if recipe.augment.random_resized_crop is not None:
                    raise ValueError(f"{name}.augment.random_resized_crop needs data.storage encoded, got decoded")
        return self


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overlay` laid over it: mappings key by key, everything else replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def load(paths: Sequence[Path]) -> Config:
    """Read the files in order, each over the ones before, and validate the result.

    Raises:
        SamaError: a file is missing or no YAML mapping, or the merged configuration is wrong.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SamaError(f"config file {path}: cannot be read ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SamaError(f"config file {path}: not valid YAML ({' '.join(str(error).split())})") from error
        if content is None:
            continue
        if not isinstance(content, dict):
            raise SamaError(f"config file {path}: expected a mapping of keys, got {type(content).__name__}")
        merged = merge(merged, content)
    return validate(merged, where=", ".join(map(str, paths)))


def validate(values: Mapping[str, Any], where: str = "config") -> Config:
    """The frozen configuration, or a `SamaError` that names each wrong key."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        # a tuple with a wrong entry is reported as too short besides: once is enough
        inner = {item["loc"][:-1] for item in found}
        told = [item for item in found if not (item["type"] == "too_short" and item["loc"] in inner)]
        raise SamaError(f"{where}: " + "; ".join(_problem(item) for item in told)) from error


def _problem(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"unknown key {key} ({hint})"
    got = item["input"]
    if item["type"] == "literal_error":
        expected = item["ctx"]["expected"]
        close = difflib.get_close_matches(str(got), re.findall(r"'([^']+)'", expected), n=3)
        return f"{key}: unknown {got!r} (" + (
            f"did you mean {' or '.join(close)}?)" if close else f"expected {expected})"
        )
    shown = "" if isinstance(got, BaseModel | dict) else f", got {got!r}"
    return f"{key}: {item['msg'].removeprefix('Value error, ')}{'' if 'got' in item['msg'] else shown}"


def _known_keys(location: Sequence[int | str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *(get_args(field.annotation) or ())]
        models = [c for c in candidates if isinstance(c, type) and not isinstance(c, types.GenericAlias)]
        model = next((c for c in models if issubclass(c, BaseModel)), model)
    return list(model.model_fields)


def dump_yaml(config: Config) -> str:
    """The merged configuration as YAML, in the order of the models."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """The JSON schema (2020-12) of a configuration file, for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
