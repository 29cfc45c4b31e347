"""A pretrained timm model as a map from pixels to features."""

from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Encoder(nn.Module):
    """Pixels in [0, 1], float [batch, 1 or 3, height, width], to features [batch, d], as the model was trained to see.

    They are resized to the model's own input size and normalised by its own mean and deviation; a grey image becomes
    three equal channels.

    Args:
        model: a timm model without a classifier; its `pretrained_cfg` says what it expects.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        expected: dict = model.pretrained_cfg  # type: ignore[assignment]
        self.size = tuple(expected["input_size"][-2:])
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(expected[name]).view(-1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """The features."""
        if tuple(pixels.shape[-2:]) != self.size:
            pixels = interpolate(pixels, self.size, mode="bilinear", antialias=True)
        return self.model((pixels - self.mean) / self.std)


def load_encoder(name: str, weights: Path | None) -> Encoder:
    """The timm model `name` in evaluation mode, with the weights of a file or with those that timm publishes.

    Args:
        name: a model of `timm.list_models()`; `NAME.TAG` chooses among its published weights.
        weights: a state dict, .safetensors or torch's own; a classifier in it is left out. None: timm's cache, or its
            download.

    Raises:
        ValueError: no such model, no such weights, or weights of another model.
    """
    if not timm.is_model(name):
        raise ValueError(f"unknown timm model {name!r}: expected one of timm.list_models(pretrained=True)")
    if weights is None:
        try:
            model = timm.create_model(name, pretrained=True, num_classes=0)
        except (OSError, RuntimeError) as error:  # no cache and no network; a model without published weights
            raise ValueError(
                f"the published weights of {name} are neither in the cache nor to be had"
                f" ({str(error).splitlines()[0]}): give a local file as encoder_weights"
            ) from error
        return Encoder(model).eval()
    model = timm.create_model(name, pretrained=False, num_classes=0)
    state = _read(weights)
    try:
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:  # another shape
        raise ValueError(f"{weights}: not weights of {name} ({str(error).splitlines()[-1].strip()})") from error
    if missing:
        raise ValueError(f"{weights}: not weights of {name}, expected {missing[0]} among them")
    return Encoder(model).eval()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: missing") from error
    except OSError:
        raise
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise ValueError(f"{path}: not a whole file of weights ({str(error).splitlines()[0]})") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}
