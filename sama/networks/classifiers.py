"""Any timm classifier, adapted to the channels and the size of the images."""

import difflib

import timm
import torch
from torch import nn


def build_classifier(
    name: str,
    *,
    classes: int,
    channels: int,
    image_size: int,
    small_stem: bool = False,
    pretrained: bool = False,
    drop_rate: float = 0.0,
) -> nn.Module:
    """The timm model `name` with `classes` outputs, for images [batch, channels, image_size, image_size].

    Args:
        name: a model of `timm.list_models()`.
        classes: number of classes.
        channels: channels of the images; a pretrained stem is summed or repeated to fit.
        image_size: side in pixels, given to the models that need it (transformers).
        small_stem: a 3x3 stride-1 stem without max-pooling, for images of 32x32 pixels and below.
        pretrained: start from timm's published weights.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: the name is unknown (the message gives the nearest ones), the architecture has no stem that can
            be made small, or the images are too small for it.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists them"
        raise ValueError(f"unknown timm model {name!r} ({hint})")
    options = {"num_classes": classes, "in_chans": channels, "pretrained": pretrained, "drop_rate": drop_rate}
    try:
        model = timm.create_model(name, img_size=image_size, **options)
    except TypeError:  # convolutional models take images of any size and have no such option
        model = timm.create_model(name, **options)
    if small_stem:
        _shrink_stem(model, name, channels)
    return model.to(memory_format=torch.channels_last)  # a quarter less time a step on the CPU, and what GPUs prefer


def _shrink_stem(model: nn.Module, name: str, channels: int) -> None:
    """Replace the stem in place; knows the ResNet family and the models with a `conv_stem`."""
    norm, convolution = getattr(model, "bn1", None), getattr(model, "conv_stem", None)
    if isinstance(norm, nn.BatchNorm2d) and hasattr(model, "conv1") and hasattr(model, "maxpool"):
        model.conv1 = nn.Conv2d(channels, norm.num_features, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    elif isinstance(convolution, nn.Conv2d):
        convolution.stride = (1, 1)
    else:
        raise ValueError(
            f"timm model {name!r} has no stem that can be made small (expected conv1 + maxpool, or conv_stem): "
            "set model.small_stem to false"
        )
