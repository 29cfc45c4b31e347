"""What the stages on images share: examples of a manifest, and the configured model."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from sama.config import ModelConfig
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import read_facts, read_parquet
from sama.images import ImageExamples
from sama.networks.classifiers import build_classifier


def examples(
    dataset: Dataset, split: str, *, labels: str = "observed", kept: np.ndarray | None = None
) -> ImageExamples:
    """Images and labels of a split, or of the `kept` sample ids of it.

    Raises:
        SamaError: clean labels are asked for and unknown, or a kept id is not in the split or stands twice.
    """
    part = dataset.split(split)
    values = part.label
    if labels == "clean":
        if part.clean_label is None:
            raise SamaError(f"split {split}: clean labels are unknown for this data")
        values = part.clean_label
    index = np.arange(len(part))
    if kept is not None:
        rows = np.searchsorted(part.sample_id, kept)
        inside = rows < len(part.sample_id)
        found = inside & (part.sample_id[np.where(inside, rows, 0)] == kept)
        if not found.all():
            raise SamaError(f"kept id {kept[~found][0]} is not in split {split}: was it made for other data?")
        index, count = np.unique(rows, return_counts=True)  # sorted: the order of a list changes nothing
        if count.max(initial=1) > 1:
            raise SamaError(f"kept id {part.sample_id[index[count > 1][0]]} stands {count.max()} times, expected once")
    images = part.images_of(index)
    held = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return ImageExamples(held, torch.from_numpy(values[index]), dataset.channel_mean, dataset.channel_std)


def kept_ids(path: Path, dataset: Dataset) -> np.ndarray:
    """The sample ids [k] of a kept list; one without a hash, of another maker, is taken as it is.

    Raises:
        SamaError: the list is missing or empty, or it was made for other data.
    """
    ids = read_parquet(path, ["sample_id"])["sample_id"].to_numpy(str)
    made_for = read_facts(path).get("data", dataset.content_hash)
    if made_for != dataset.content_hash:
        raise SamaError(
            f"{path}: made for other data (content hash {made_for[:12]}…), expected a kept list of {dataset.path}"
            f" ({dataset.content_hash[:12]}…)"
        )
    if not len(ids):
        raise SamaError(f"{path}: keeps no example")
    return ids


def classifier(model: ModelConfig, dataset: Dataset, seed: int) -> nn.Module:
    """The configured timm model for these images, initialised by `seed`.

    Raises:
        SamaError: the model is unknown or does not fit the images.
    """
    torch.manual_seed(seed)
    channels, height, width = dataset.image_shape
    if height != width:
        raise SamaError(f"expected square images, got {height}x{width}: set data.image_size")
    try:
        network = build_classifier(
            model.name,
            classes=len(dataset.class_names),
            channels=channels,
            image_size=height,
            small_stem=model.small_stem,
            pretrained=model.pretrained,
            drop_rate=model.drop_rate,
        )
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, height, width))
    except ValueError as error:
        raise SamaError(f"model.name: {error}") from error
    except (RuntimeError, AssertionError) as error:
        raise SamaError(
            f"model.name: {model.name} does not take images of {height}x{width} pixels ({str(error).splitlines()[0]}): "
            "set data.image_size or choose another model"
        ) from error
    return network.train()
