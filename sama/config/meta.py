"""Meta training: the hypergradient, the meta network and its optimizer."""

from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sama.config.base import Section, require_distinct
from sama.config.training import RecipeConfig, TrainingConfig, require_micro_batches


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
        require_distinct(value, "features")
        return value


DIFFERENCE = ("difference", "displace")
KNOBS: dict[str, tuple[str, ...]] = {
    "sama": DIFFERENCE,
    "sama_na": DIFFERENCE,
    "darts": ("learning_rate", "difference"),
    "neumann": ("iterations", "learning_rate"),
    "cg": ("iterations", "tolerance", "regularization"),
    "itd": ("inner_steps",),
    "exact": ("regularization", "limit"),
}
"""Method -> its knobs beside `alpha`; a test compares with the signatures in `sama.hypergradient`."""


class MethodOptions(Section):
    """Knobs of the hypergradient method; null: the method's own default. One that the method lacks is refused."""

    difference: Literal["central", "one_sided", "exact"] | None = Field(
        default=None,
        description="sama, sama_na, darts: central (error O(epsilon^2)), one_sided (O(epsilon), a forward less) or "
        "exact (forward mode, no epsilon, a forward more)",
    )
    displace: bool | None = Field(
        default=None, strict=True, description="sama, sama_na: after a meta step the base parameters stay at θ − εv"
    )
    iterations: int | None = Field(
        default=None, ge=0, strict=True, description="neumann: terms after the first; cg: at most that many, at least 1"
    )
    learning_rate: float | None = Field(
        default=None, gt=0.0, description="darts: size of the virtual step; neumann: below 2 / largest eigenvalue"
    )
    tolerance: float | None = Field(default=None, ge=0.0, description="cg: relative residual that ends it")
    regularization: float | None = Field(default=None, ge=0.0, description="cg, exact: added to the Hessian's diagonal")
    inner_steps: int | None = Field(default=None, ge=1, strict=True, description="itd: base steps that are unrolled")
    limit: int | None = Field(
        default=None, ge=1, strict=True, description="exact: the most base parameters that are accepted"
    )

    def given(self) -> dict[str, Any]:
        """The knobs that are set."""
        return self.model_dump(exclude_none=True)


class BilevelConfig(Section):
    """What every meta training takes: the method, the meta level's optimizer and batches."""

    method: Literal["sama", "sama_na", "darts", "neumann", "cg", "itd", "exact"] = Field(
        default="sama",
        description="hypergradient method; sama_na leaves the adaptation to the optimizer out; exact: small models",
    )
    alpha: float = Field(
        default=0.1, gt=0.0, description="sama, sama_na, darts: step of the difference, epsilon = alpha / norm of v"
    )
    options: MethodOptions = Field(default_factory=MethodOptions, description="further knobs of the method")
    unroll_steps: int = Field(default=2, ge=1, strict=True, description="base steps before a meta step")
    learning_rate: float = Field(default=3e-3, gt=0.0, description="Adam learning rate of the meta network")
    batch_size: int = Field(default=100, ge=2, description="meta examples a meta step; BatchNorm needs two")
    accumulate: int = Field(
        default=1,
        ge=1,
        strict=True,
        description="equal micro-batches that a meta batch is split into; several processes share them",
    )
    clip_norm: float | None = Field(
        default=None, gt=0.0, description="hypergradients of a larger 2-norm are scaled down to it; null: never"
    )
    score_from: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="an example's score is its mean weight over the steps after this fraction of them",
    )

    @property
    def second_order(self) -> bool:
        """Whether the method takes derivatives that neither compiled forwards nor fused attention have."""
        return self.method in ("neumann", "cg", "itd", "exact") or self.options.difference == "exact"

    @model_validator(mode="after")
    def _meta_micro_batches(self) -> Self:
        require_micro_batches(self.batch_size, self.accumulate)
        return self

    @field_validator("options")
    @classmethod
    def _of_the_method(cls, value: MethodOptions, info: ValidationInfo) -> MethodOptions:
        method = info.data.get("method")
        if method is None:  # wrong itself, and told
            return value
        unknown = [knob for knob in value.given() if knob not in KNOBS[method]]
        if unknown:
            raise ValueError(f"{method} has no knob {', '.join(unknown)}: expected any of {', '.join(KNOBS[method])}")
        if method == "cg" and value.iterations == 0:
            raise ValueError("cg needs iterations >= 1, got 0")
        return value


class MetaConfig(BilevelConfig):
    """SAMA meta training of base model and meta weight network."""

    ema_decay: float = Field(default=0.9, ge=0.0, lt=1.0, description="decay of the EMA teacher, per base step")
    network: MetaNetworkConfig = Field(default_factory=MetaNetworkConfig, description="the meta network")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="recipe of the base level")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        require_meta_steps(self, self.training)
        return self


def require_meta_steps(meta: BilevelConfig, recipe: RecipeConfig) -> None:
    """Return if a training by `recipe` has meta steps, and its forward the derivatives that they need.

    Raises:
        ValueError: it has not.
    """
    if meta.unroll_steps > recipe.steps:
        raise ValueError(
            f"unroll_steps = {meta.unroll_steps} are more than the {recipe.steps} training.steps: "
            "there would be no meta step"
        )
    if recipe.compile and meta.second_order:
        what = meta.method if meta.options.difference != "exact" else "difference: exact"
        raise ValueError(f"training.compile: {what} needs derivatives that a compiled forward has not; set it to false")
