"""Where the examples come from, how they are split, and which label noise is planted."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sama.config.base import Section

SplitSize = int | float | None


class SplitConfig(Section):
    """Sizes of the held-out splits; what is left is the training split. All splits are disjoint."""

    meta: int | float = Field(
        default=100,
        description="examples of the meta set: a count (int >= 0) or a fraction of the pool (float in (0, 1))",
    )
    validation: int | float = Field(
        default=0.1, description="examples that models are chosen on: a count or a fraction of the pool"
    )
    test: int | float | None = Field(
        default=None,
        description="examples that are read once: a count, a fraction, or null for the source's own test split",
    )

    @field_validator("meta", "validation", "test")
    @classmethod
    def _size(cls, value: int | float | None) -> int | float | None:
        if value is None:
            return value
        if isinstance(value, float) and not 0.0 < value < 1.0:
            raise ValueError(f"expected a count (whole number) or a fraction in (0, 1), got {value}")
        if value < 0:
            raise ValueError(f"expected a count >= 0, got {value}")
        return value


class NoiseConfig(Section):
    """Label noise planted in the observed labels; the clean label is kept for evaluation only."""

    kind: Literal["none", "symmetric", "asymmetric"] = Field(
        default="none",
        description="symmetric: to any other class; asymmetric: to the class that `flips` names, or to the next",
    )
    rate: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="fraction of labels replaced by a wrong one, exact per split"
    )
    flips: dict[str, str] | None = Field(
        default=None,
        description="asymmetric only: class name -> class it is mistaken for, other classes stay; null: k -> k + 1",
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.kind == "none") != (self.rate == 0.0):
            raise ValueError(f"kind {self.kind!r} does not go with rate {self.rate}: use kind none with rate 0")
        if self.flips is not None and self.kind != "asymmetric":
            raise ValueError(f"flips is for kind asymmetric, got kind {self.kind!r}")
        return self


class DataConfig(Section):
    """One image source, its splits and its noise."""

    source: Literal["digits", "fashion_mnist", "cifar10", "cifar100", "image_folder", "parquet", "webdataset"] = Field(
        default="digits", description="registered source of images"
    )
    path: str | None = Field(
        default=None,
        description="image_folder, parquet, webdataset: folder below the data root, or an absolute one; torchvision"
        " sets: same",
    )
    label_column: str = Field(
        default="label",
        description="parquet: column of the (clean, if another is observed) label; webdataset: entry of json, or cls",
    )
    observed_label_column: str | None = Field(
        default=None,
        description="the noisy label to learn from: of parquet and webdataset, where label_column is then the clean "
        "label, or of the published CIFAR-N file beside cifar10 (worse_label, …) or cifar100 (noisy_label)",
    )
    image_size: int | None = Field(
        default=None, ge=1, description="side in pixels after resizing; null: as in the source"
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1 grey, 3 colour; null: as in the source, 3 for image files of any mode"
    )
    storage: Literal["decoded", "encoded"] = Field(
        default="decoded",
        description="decoded: all pixels in one array, and a split in memory; encoded: images stay in their files and"
        " are decoded when they are read (image_folder, webdataset; parquet is copied as it is), for large sets",
    )
    check_images: bool = Field(
        default=True,
        description="encoded: decode every image once in prepare, to find corrupt ones, overlap and changed content"
        " (parquet, which is copied, always is)",
    )
    corrupt_images: Literal["error", "skip"] = Field(
        default="error",
        description="an image that cannot be decoded, or whose 32-bit pixels have no fixed range: error stops and names"
        " it; skip leaves it out, counted and named",
    )
    max_images: int | None = Field(
        default=None, ge=1, description="take a class-balanced random subset of the source's training part of this size"
    )
    max_test_images: int | None = Field(default=None, ge=1, description="the same for the source's own test part")
    meta_set: Literal["clean_held_out", "noisy_held_out", "training"] = Field(
        default="clean_held_out",
        description="labels of the meta set: held out and clean; held out with the observed labels; or the training "
        "set itself (splits.meta is then not used)",
    )
    splits: SplitConfig = Field(default_factory=SplitConfig, description="sizes of the held-out splits")
    noise: NoiseConfig = Field(default_factory=NoiseConfig, description="planted label noise")

    @model_validator(mode="after")
    def _stored(self) -> Self:
        if self.storage == "encoded":
            if self.source not in ("image_folder", "parquet", "webdataset"):
                raise ValueError(f"storage encoded: source {self.source!r} has no encoded images: use decoded")
            if self.image_size is None:
                raise ValueError("storage encoded: expected an image_size that images are brought to, got null")
        elif not self.check_images:
            raise ValueError("check_images false is for storage encoded: decoded images are all read anyway")
        if self.corrupt_images == "skip" and not self.check_images:
            raise ValueError("corrupt_images skip: corrupt images are only found where check_images is true")
        return self

    @model_validator(mode="after")
    def _one_noise(self) -> Self:
        if self.observed_label_column is not None and self.noise.kind != "none":
            raise ValueError(
                f"noise.kind {self.noise.kind!r} does not go with observed_label_column "
                f"{self.observed_label_column!r}, whose labels are noisy already: use kind none with rate 0"
            )
        return self
