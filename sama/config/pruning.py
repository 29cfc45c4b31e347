"""Scores and selection."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from sama.config.base import Section, require_distinct

Ratio = Annotated[float, Field(gt=0.0, lt=1.0)]
Method = Literal[
    "meta_weight",
    "meta_weight_loss",
    "random",
    "el2n",
    "el2n_reversed",
    "grand",
    "margin",
    "entropy",
    "forgetting",
    "aum",
    "dyn_unc",
    "tdds",
    "dual",
    "prototype",
]
Epochs = Annotated[int, Field(ge=2)] | None
EPOCHS = "whole epochs of the observed training that are read; null: all"


class ObserveConfig(Section):
    """One training with the recipe `training`, watched: what scores of training dynamics and of features read."""

    steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="optimizer steps, at most those of the recipe; null: all of them"
    )
    divergence: bool = Field(
        default=True,
        description="record how far each prediction is from the one before, which tdds reads; keeps the last prediction"
        " of every example in memory, 4 bytes a class",
    )
    features: bool = Field(
        default=True,
        description="write the penultimate features of every example, which prototype (without an encoder) and the"
        " strategy d2 read",
    )


class ProxyConfig(Section):
    """Models trained for a score; they follow the `training` recipe but for the number of steps."""

    models: int = Field(default=1, ge=1, description="independently initialised models whose scores are averaged")
    steps: int = Field(default=400, ge=1, description="optimizer steps of each")


class EpochsConfig(Section):
    """A score of training dynamics."""

    epochs: Epochs = Field(default=None, description=EPOCHS)


class WindowConfig(Section):
    """A score of training dynamics in a sliding window."""

    window: int = Field(default=10, ge=2, description="epochs in the window (J)")
    epochs: Epochs = Field(default=None, description=EPOCHS)


class TDDSConfig(Section):
    """TDDS; its paper tunes window and epochs to the ratio."""

    window: int = Field(default=10, ge=3, description="predictions in the window (J)")
    epochs: Epochs = Field(default=None, description=EPOCHS)
    decay: float = Field(default=0.9, gt=0.0, lt=1.0, description="weight of the last window against all before it")


class PrototypeConfig(Section):
    """Prototype distance."""

    clusters: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="clusters of k-means; null: one a class"
    )
    encoder: str | None = Field(
        default=None,
        description="timm model whose pretrained features are clustered (the paper's are self-supervised); null: those"
        " of the observed training",
    )
    encoder_weights: str | None = Field(
        default=None, description="file of the encoder's weights; null: timm's published ones, downloaded once"
    )

    @model_validator(mode="after")
    def _weights_of_something(self) -> Self:
        if self.encoder_weights and not self.encoder:
            raise ValueError("encoder_weights is given without the encoder whose weights they are")
        return self


EARLY = ProxyConfig(models=3, steps=100)
TRAINED = ProxyConfig(models=1, steps=400)


class ScoresConfig(Section):
    """The pruning scores to compare."""

    methods: tuple[Method, ...] = Field(
        default=("meta_weight", "random", "el2n", "margin"), min_length=1, description="scores to compute and compare"
    )
    el2n: ProxyConfig = Field(
        default=EARLY, description="EL2N: several models, early in training (paper: 10 models, 20 epochs)"
    )
    el2n_reversed: ProxyConfig = Field(default=EARLY, description="EL2N in reverse, a detector of wrong labels")
    grand: ProxyConfig = Field(default=EARLY, description="GraNd: as EL2N; a gradient for every example besides")
    margin: ProxyConfig = Field(default=TRAINED, description="margin: a fully trained model")
    entropy: ProxyConfig = Field(default=TRAINED, description="entropy: a fully trained model")
    forgetting: EpochsConfig = Field(default=EpochsConfig(), description="forgetting events")
    aum: EpochsConfig = Field(default=EpochsConfig(), description="area under the margin")
    dyn_unc: WindowConfig = Field(default=WindowConfig(), description="dynamic uncertainty")
    tdds: TDDSConfig = Field(default=TDDSConfig(), description="temporal dual-depth scoring")
    dual: WindowConfig = Field(default=WindowConfig(epochs=30), description="difficulty times uncertainty, early")
    prototype: PrototypeConfig = Field(default=PrototypeConfig(), description="distance to the nearest prototype")

    @field_validator("methods")
    @classmethod
    def _unique(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_distinct(value, "methods")
        return value


class StratifiedConfig(Section):
    """Coverage-centric selection (CCS)."""

    strata: int = Field(default=50, ge=1, description="ranges of the score, of equal width")
    hard_cutoff: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="fraction of the hardest examples that go first (beta; the paper tunes it to the ratio, 0.3 at"
        " 0.9); nothing is cut by a score that does not order examples by difficulty",
    )


class D2Config(Section):
    """D2 pruning: message passing between neighbours in the features of the observed training."""

    neighbors: int = Field(default=10, ge=1, description="nearest neighbours of an example")
    gamma_forward: float = Field(default=1.0, ge=0.0, description="how fast shared difficulty fades with distance")
    gamma_reverse: float = Field(default=1.0, ge=0.0, description="how fast a kept example's claim fades with distance")


class BetaConfig(Section):
    """Beta sampling (DUAL): the higher the pruning ratio, the easier the examples that are drawn."""

    epochs: Epochs = Field(default=30, description="epochs over which the probability of the label is averaged")
    concentration: float = Field(default=15.0, gt=0.0, description="how narrow the Beta distribution is (C)")
    power: float = Field(
        default=4.0, gt=0.0, description="how late the ratio begins to matter (c_D; the authors' code has 4)"
    )


class SelectionConfig(Section):
    """From scores to kept ids."""

    strategy: Literal["global", "class_balanced", "stratified", "d2", "beta"] = Field(
        default="global",
        description="the highest scores overall, or of every class; an equal share of every range of scores (CCS);"
        " high scores that are not neighbours (D2); or a draw by score and difficulty (beta, made for dual)",
    )
    stratified: StratifiedConfig = Field(default_factory=StratifiedConfig, description="knobs of stratified")
    d2: D2Config = Field(default_factory=D2Config, description="knobs of d2")
    beta: BetaConfig = Field(default_factory=BetaConfig, description="knobs of beta")
    pruning_ratios: tuple[Ratio, ...] = Field(
        default=(0.3, 0.5, 0.7), min_length=1, description="fractions removed, in (0, 1)"
    )

    @field_validator("pruning_ratios")
    @classmethod
    def _unique(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        require_distinct(value, "ratios")
        return value
