"""Meta training: the hypergradient, the meta network and its optimizer."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sama.config.base import Section
from sama.config.training import TrainingConfig, require_micro_batches


class MetaNetworkConfig(Section):
    """The network that turns (loss, uncertainty) into an importance weight."""

    features: tuple[Literal["loss", "uncertainty"], ...] = Field(
        default=("loss", "uncertainty"),
        min_length=1,
        description="inputs: cross-entropy, cross-entropy against the EMA teacher",
    )
    hidden_size: int = Field(default=100, ge=1, description="width of the hidden layer")
    normalize: Literal["micro_batch", "none"] = Field(
        default="micro_batch",
        description="divide the weights by their mean over the micro-batch of one process; none: leave them",
    )

    @field_validator("features")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected distinct features, got {', '.join(value)}")
        return value


class MetaConfig(Section):
    """SAMA meta training of base model and meta network."""

    method: Literal["sama", "sama_na", "darts", "neumann", "cg", "itd", "exact"] = Field(
        default="sama",
        description="hypergradient method; sama_na leaves the adaptation to the optimizer out; exact: small models",
    )
    alpha: float = Field(default=0.1, gt=0.0, description="central difference step: epsilon = alpha / norm of v")
    unroll_steps: int = Field(default=2, ge=1, description="base steps before a meta step")
    learning_rate: float = Field(default=3e-3, gt=0.0, description="Adam learning rate of the meta network")
    batch_size: int = Field(default=100, ge=2, description="meta examples a meta step; BatchNorm needs two")
    accumulate: int = Field(default=1, ge=1, description="equal micro-batches that a meta batch is split into")
    clip_norm: float | None = Field(
        default=None, gt=0.0, description="hypergradients of a larger 2-norm are scaled down to it; null: never"
    )
    ema_decay: float = Field(default=0.9, ge=0.0, lt=1.0, description="decay of the EMA teacher, per base step")
    network: MetaNetworkConfig = Field(default_factory=MetaNetworkConfig, description="the meta network")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="recipe of the base level")
    score_from: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="an example's score is its mean weight over the steps after this fraction of them",
    )

    @model_validator(mode="after")
    def _micro_batches(self) -> Self:
        require_micro_batches(self.batch_size, self.accumulate)
        return self
