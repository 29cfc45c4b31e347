"""What the stages that train share: examples, the model, and what an interrupted run continues from."""

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from sama.bilevel import checkpoint
from sama.config import ModelConfig, RuntimeConfig
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import atomic, copy, read_facts, read_parquet, sha256
from sama.images import ImageExamples
from sama.metrics import MetricLog
from sama.networks.classifiers import build_classifier
from sama.stages._keys import source_hash
from sama.training import setup_torch


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


def load_weights(module: nn.Module, path: Path) -> None:
    """Read the file of `save_weights` into `module`.

    Raises:
        SamaError: the file is missing, damaged, or of another model.
    """
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        raise SamaError(f"{path}: not the weights of this model ({str(error).splitlines()[0]})") from error


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the parameters and buffers of `module` as safetensors, atomically."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # safetensors' own writer has an error type of its own for a full disk


def device_of(runtime: RuntimeConfig) -> torch.device:
    """Set torch up and return the device.

    Raises:
        SamaError: a GPU was asked for and there is none.
    """
    try:
        return setup_torch(runtime.threads, runtime.device)
    except ValueError as error:
        raise SamaError(str(error)) from error


def machine_key(key: str, device: torch.device) -> str:
    """`key` of a run, and of what its numbers depend on in the last bits: code, torch, device and number of threads."""
    return sha256(key, source_hash(), torch.__version__, device.type, str(torch.get_num_threads()))


class Run:
    """The folder where a training run leaves what it needs to be continued: its checkpoint and its metrics so far.

    It is no output of the workflow (Snakemake deletes outputs before it runs a job again); `finish` removes it.

    Args:
        folder: made if needed.
        key: of the run; what another run left in the folder is ignored, and so is what other code, another torch,
            device or number of threads left: their numbers differ in the last bits.
        device: where the run computes.
    """

    def __init__(self, folder: Path, key: str, device: torch.device) -> None:
        self.folder = folder
        self.key = machine_key(key, device)
        self._checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        content = checkpoint.load(self._checkpoint, self.key)
        self.checkpointed: dict[str, Any] | None = content["state"] if content else None
        self.step: int = content["step"] if content else 0
        self.metrics = MetricLog(folder / "metrics.jsonl", resume_step=self.step if content else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.metrics.close()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of `step`."""
        checkpoint.save(self._checkpoint, {"step": step, "state": state}, self.key)

    def finish(self, metrics: Path) -> None:
        """Copy the metrics to their place and clear up; call it when every other output stands."""
        self.metrics.close()
        copy(self.metrics.path, metrics)
        self.drop()

    def drop(self) -> None:
        """Clear up: what was trained is not needed any more, or stands elsewhere."""
        self.metrics.close()
        # the checkpoint first: with it, but without the metrics before it, a run killed here could not be continued
        self._checkpoint.unlink(missing_ok=True)
        self.metrics.path.unlink()
        for leftover in self.folder.glob(".*"):  # half a file of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
