"""The ordinary supervised recipe that retraining, baselines and scores share."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sama.config.base import Section

Area = Annotated[float, Field(gt=0.0, le=1.0)]


class AugmentConfig(Section):
    """Random changes of a training batch."""

    crop_padding: int = Field(
        default=0, ge=0, description="pixels of zero padding before a random crop of the same size"
    )
    horizontal_flip: bool = Field(default=False, description="mirror half of the images")
    random_resized_crop: tuple[Area, Area] | None = Field(
        default=None,
        description="data.storage encoded: smallest and largest area of a random crop, as fractions of the image, which"
        " is resized to data.image_size (ratio 3:4 to 4:3); null: the largest central square",
    )

    @model_validator(mode="after")
    def _one_crop(self) -> Self:
        if self.random_resized_crop is not None:
            if self.crop_padding:
                raise ValueError("random_resized_crop does not go with crop_padding: set one of them")
            low, high = self.random_resized_crop
            if low > high:
                raise ValueError(f"random_resized_crop: expected the smaller area first, got {low}, {high}")
        return self


class OptimizerConfig(Section):
    """An optimizer with its usual knobs."""

    name: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="update rule")
    learning_rate: float = Field(default=0.1, gt=0.0, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="sgd only")
    nesterov: bool = Field(default=True, description="sgd only, needs momentum > 0")
    betas: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]] = Field(
        default=(0.9, 0.999), description="adam and adamw only"
    )
    epsilon: float = Field(default=1e-8, gt=0.0, description="adam and adamw only: added to the denominator")
    weight_decay: float = Field(default=5e-4, ge=0.0, description="L2 (sgd, adam) or decoupled (adamw) weight decay")


class RecipeConfig(Section):
    """What ordinary trainings of images and of texts have alike."""

    steps: int = Field(default=400, ge=1, description="optimizer steps on the whole training split")
    batch_size: int = Field(default=128, ge=2, description="examples a step")
    accumulate: int = Field(
        default=1,
        ge=1,
        strict=True,
        description="equal micro-batches that a batch is split into, to need less memory, or for processes to share",
    )
    clip_norm: float | None = Field(
        default=None, gt=0.0, description="gradients of a larger 2-norm are scaled down to it; null: never"
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="the optimizer")
    precision: Literal["float32", "bf16", "fp16"] = Field(
        default="float32", description="of the forwards; parameters and optimizer states stay float32"
    )
    compile: bool = Field(
        default=False,
        strict=True,
        description="compile the forward of the model (torch.compile); the rounds of self_training are not compiled",
    )
    schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        default="cosine",
        description="learning rate over the steps: cosine or linear to zero; step, multiplied by decay_factor at each "
        "milestone; or constant",
    )
    milestones: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...] = Field(
        default=(), description="step only: fractions of the steps, ascending, in (0, 1)"
    )
    decay_factor: float = Field(default=0.1, gt=0.0, lt=1.0, description="step only: factor at a milestone")
    warmup_steps: int = Field(default=0, ge=0, description="linear warm-up of the learning rate")
    log_every: int = Field(default=25, ge=1, description="steps between two lines of metrics.jsonl")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between two checkpoints")

    @model_validator(mode="after")
    def _milestones(self) -> Self:
        shown = f"[{', '.join(map(str, self.milestones))}]"
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError(
                f"schedule {self.schedule!r} does not go with milestones {shown}: schedule step needs at least one, "
                "the others none"
            )
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: expected ascending fractions of the steps, got {shown}")
        return self

    @model_validator(mode="after")
    def _micro_batches(self) -> Self:
        require_micro_batches(self.batch_size, self.accumulate)
        return self


class TrainingConfig(RecipeConfig):
    """The recipe of an ordinary training; `retrain.budget` says what it means for fewer examples."""

    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="random changes of a batch")


def require_micro_batches(batch_size: int, accumulate: int) -> None:
    """Return if the batch can be split into equal micro-batches of two examples at least (BatchNorm needs two).

    Raises:
        ValueError: it cannot.
    """
    if batch_size % accumulate or batch_size // accumulate < 2:
        raise ValueError(
            f"a batch_size of {batch_size} cannot be split into accumulate = {accumulate} equal micro-batches"
            " of two examples at least"
        )
