"""Scores and selection."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sama.config.base import Section

Ratio = Annotated[float, Field(gt=0.0, lt=1.0)]
Method = Literal["meta_weight", "random", "el2n", "margin"]


class ProxyConfig(Section):
    """Models trained for a score; they follow the `training` recipe but for the number of steps."""

    models: int = Field(default=1, ge=1, description="independently initialised models whose scores are averaged")
    steps: int = Field(default=400, ge=1, description="optimizer steps of each")


class ScoresConfig(Section):
    """The pruning scores to compare."""

    methods: tuple[Method, ...] = Field(
        default=("meta_weight", "random", "el2n", "margin"), min_length=1, description="scores to compute and compare"
    )
    el2n: ProxyConfig = Field(
        default=ProxyConfig(models=3, steps=100), description="EL2N: several models, early in training"
    )
    margin: ProxyConfig = Field(default=ProxyConfig(models=1, steps=400), description="margin: a fully trained model")

    @field_validator("methods")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected distinct methods, got {', '.join(value)}")
        return value


class SelectionConfig(Section):
    """From scores to kept ids."""

    strategy: Literal["global", "class_balanced"] = Field(
        default="global", description="remove the lowest scores overall, or the same fraction of every class"
    )
    pruning_ratios: tuple[Ratio, ...] = Field(
        default=(0.3, 0.5, 0.7), min_length=1, description="fractions removed, in (0, 1)"
    )

    @field_validator("pruning_ratios")
    @classmethod
    def _unique(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected distinct ratios, got {', '.join(map(str, value))}")
        return value
