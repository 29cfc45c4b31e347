"""The base model."""

from pydantic import Field

from sama.config.base import Section


class ModelConfig(Section):
    """A classifier of timm, adapted to the images."""

    name: str = Field(default="test_resnet", description="any timm model name")
    pretrained: bool = Field(default=False, description="start from timm's published weights (downloads them)")
    small_stem: bool = Field(
        default=True, description="3x3 stride-1 stem without max-pooling, for images of 32x32 pixels and below"
    )
    drop_rate: float = Field(default=0.0, ge=0.0, lt=1.0, description="dropout before the classifier")
