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
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator

from sama.config.base import Section, require_distinct
from sama.config.data import DataConfig, NoiseConfig, SplitConfig
from sama.config.meta import BilevelConfig, MetaConfig, MetaNetworkConfig, MethodOptions, require_meta_steps
from sama.config.model import ModelConfig
from sama.config.pruning import ObserveConfig, ProxyConfig, ScoresConfig, SelectionConfig
from sama.config.retrain import RetrainConfig
from sama.config.runtime import LauncherConfig, RuntimeConfig
from sama.config.texts import (
    WEIGHTING,
    FinetuningConfig,
    SelfTrainingConfig,
    TextDataConfig,
    TextMetaConfig,
    TextModelConfig,
    TextRecipeConfig,
    TuningConfig,
)
from sama.config.training import AugmentConfig, OptimizerConfig, RecipeConfig, TrainingConfig
from sama.errors import SamaError

__all__ = [
    "WEIGHTING",
    "AugmentConfig",
    "BilevelConfig",
    "Config",
    "DataConfig",
    "Experiment",
    "FinetuningConfig",
    "LauncherConfig",
    "MetaConfig",
    "MetaNetworkConfig",
    "MethodOptions",
    "ModelConfig",
    "NoiseConfig",
    "ObserveConfig",
    "OptimizerConfig",
    "ProxyConfig",
    "RecipeConfig",
    "RetrainConfig",
    "RuntimeConfig",
    "ScoresConfig",
    "SelectionConfig",
    "SelfTrainingConfig",
    "SplitConfig",
    "TextDataConfig",
    "TextMetaConfig",
    "TextModelConfig",
    "TextRecipeConfig",
    "TextsConfig",
    "TrainingConfig",
    "TuningConfig",
    "dump_yaml",
    "flatten",
    "json_schema",
    "load",
    "load_any",
    "merge",
    "over_default",
    "validate",
    "validate_any",
]


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", description="name; results go to results/<experiment>/")]


class Experiment(Section):
    """What every experiment has."""

    experiment: Name
    seeds: tuple[int, ...] = Field(
        default=(0, 1, 2, 3, 4), min_length=1, description="one independent replicate a seed"
    )
    data_root: str | None = Field(
        default=None, description="folder that holds the data sets; null: the environment's SAMA_DATA_DIR"
    )

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        require_distinct(value, "seeds")
        if min(value) < 0 or max(value) >= 2**31:
            raise ValueError(f"expected seeds in 0..{2**31 - 1}, got {', '.join(map(str, value))}")
        return value


class Config(Experiment):
    """An experiment of data pruning on images, whole."""

    workload: Literal["image_pruning"] = Field(default="image_pruning", description="what the experiment is about")
    experiment: Name = "digits_pruning"
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

    @model_validator(mode="after")
    def _crops(self) -> Self:
        if self.data.storage != "encoded":
            for name, recipe in (("training", self.training), ("meta.training", self.meta.training)):
                if recipe.augment.random_resized_crop is not None:
                    raise ValueError(f"{name}.augment.random_resized_crop needs data.storage encoded, got decoded")
        return self


class TextsConfig(Experiment):
    """An experiment of finetuning on texts with weak labels, or with an auxiliary objective, whole."""

    workload: Literal["texts"] = Field(default="texts", description="what the experiment is about")
    experiment: Name = "synthetic_texts"
    data: TextDataConfig = Field(default_factory=TextDataConfig, description="the texts")
    model: TextModelConfig = Field(default_factory=TextModelConfig, description="the encoder")
    training: TextRecipeConfig = Field(default_factory=TextRecipeConfig, description="the recipe of every finetuning")
    meta: TextMetaConfig = Field(default_factory=TextMetaConfig, description="the meta level")
    finetuning: FinetuningConfig = Field(default_factory=FinetuningConfig, description="the methods")
    tuning: TuningConfig = Field(default_factory=TuningConfig, description="how hyperparameters are chosen")
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig, description="threads and device")
    launcher: LauncherConfig = Field(
        default=LauncherConfig(stages=("finetune",)), description="who carries the heavy stages"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        methods = self.finetuning.methods
        if set(methods) & set(WEIGHTING):
            require_meta_steps(self.meta, self.training)
        shared = sorted(set(self.seeds) & set(self.tuning.seeds))
        if self.tuning.grids and shared:
            raise ValueError(f"tuning.seeds: expected none of the reported seeds, got {shared[0]}")
        sizes = {method: len(self.tuning.candidates(method)) for method in methods}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(f"tuning.grids: expected as many candidates for every method, got {told}")
        for method in methods if self.tuning.grids else ():
            for candidate in self.tuning.candidates(method):
                self.tuned(candidate, where=f"tuning.grids: {method}")
        return self

    def tuned(self, candidate: Mapping[str, Any], where: str) -> "TextsConfig":
        """This configuration with a candidate of the grid laid over it.

        Raises:
            ValueError: the candidate has an unknown key or a wrong value.
        """
        try:
            return TextsConfig.model_validate(merge({**self.model_dump(mode="json"), "tuning": {}}, candidate))
        except ValidationError as error:
            raise ValueError(f"{where}: {'; '.join(_problem(item, TextsConfig) for item in error.errors())}") from error


WORKLOADS: dict[str, type[Config] | type[TextsConfig]] = {"image_pruning": Config, "texts": TextsConfig}
BASES = {"image_pruning": Path("config/config.yaml"), "texts": Path("config/texts.yaml")}
"""Workload -> the embedded default that configurations of it are laid over."""


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overlay` laid over it: mappings key by key, everything else replaced."""
    merged = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def load(paths: Sequence[Path]) -> Config:
    """Read the files in order, each over the ones before, and validate the result.

    Raises:
        SamaError: a file is missing or no YAML mapping, or the merged configuration is wrong or of another workload.
    """
    return validate(read(paths), where=", ".join(map(str, paths)))


def load_any(paths: Sequence[Path]) -> Config | TextsConfig:
    """`load` for a configuration of any workload."""
    return validate_any(read(paths), where=", ".join(map(str, paths)))


def over_default(overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`overlay` laid over the embedded default of its workload.

    Raises:
        SamaError: no such workload, or the default is missing: this is not the repository's folder.
    """
    workload = overlay.get("workload", "image_pruning")
    if workload not in BASES:
        raise SamaError(f"config: workload: unknown {workload!r} (expected {' or '.join(BASES)})")
    return merge(read([BASES[workload]]), overlay)


def read(paths: Sequence[Path]) -> dict[str, Any]:
    """The content of the files, each laid over the ones before, not validated.

    Raises:
        SamaError: a file is missing or no YAML mapping.
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
    return merged


def validate(values: Mapping[str, Any], where: str = "config") -> Config:
    """The frozen configuration of an experiment on images, or a `SamaError` that names each wrong key."""
    found = validate_any(values, where)
    if not isinstance(found, Config):
        raise SamaError(f"{where}: workload: expected image_pruning here, got {found.workload}")
    return found


def validate_any(values: Mapping[str, Any], where: str = "config") -> Config | TextsConfig:
    """The frozen configuration of any workload, or a `SamaError` that names each wrong key."""
    model = WORKLOADS.get(values.get("workload", "image_pruning"))
    if model is None:
        raise SamaError(f"{where}: workload: unknown {values['workload']!r} (expected {' or '.join(WORKLOADS)})")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors()
        # a tuple with a wrong entry is reported as too short besides: once is enough
        inner = {item["loc"][:-1] for item in found}
        told = [item for item in found if not (item["type"] == "too_short" and item["loc"] in inner)]
        raise SamaError(f"{where}: " + "; ".join(_problem(item, model) for item in told)) from error


def _problem(item: Any, top: type[Section]) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "config"
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1], top)
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


def _known_keys(location: Sequence[int | str], top: type[Section]) -> list[str]:
    model: type[BaseModel] = top
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        candidates = [field.annotation, *(get_args(field.annotation) or ())]
        models = [c for c in candidates if isinstance(c, type) and not isinstance(c, types.GenericAlias)]
        model = next((c for c in models if issubclass(c, BaseModel)), model)
    return list(model.model_fields)


def dump_yaml(config: Config | TextsConfig) -> str:
    """The merged configuration as YAML, in the order of the models."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def json_schema() -> str:
    """The JSON schema (2020-12) of a configuration file of any workload, for editors."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(Config | TextsConfig).json_schema(),
    }
    return json.dumps(schema, indent=2) + "\n"
