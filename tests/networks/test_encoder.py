"""A pretrained encoder sees what it was trained to see, and its weights are its own."""

import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from sama.networks.encoder import load_encoder

NAME = "test_resnet"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A classifier, and the file of its weights."""
    torch.manual_seed(3)
    model = timm.create_model(NAME, num_classes=5).eval()
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_features_are_those_of_the_trained_model_on_what_it_expects(trained, tmp_path):
    model, path = trained
    pixels = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    size = model.pretrained_cfg["input_size"][-2:]
    with torch.no_grad():
        seen = (interpolate(pixels, size, mode="bilinear", antialias=True) - mean) / std
        expected = model.forward_head(model.forward_features(seen), pre_logits=True)
        torch.testing.assert_close(load_encoder(NAME, path)(pixels), expected)
        grey = pixels[:, :1]
        encoder = load_encoder(NAME, path)
        torch.testing.assert_close(encoder(grey), encoder(grey.expand(-1, 3, -1, -1)))
        torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
        assert torch.equal(load_encoder(NAME, tmp_path / "weights.pth")(pixels), encoder(pixels))


def test_weights_that_are_not_to_be_had_are_one_line(trained, tmp_path, monkeypatch):
    model, path = trained
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "half.safetensors").write_bytes(b"half")
    (tmp_path / "half.pth").write_bytes(b"half")
    part = {name: value for name, value in model.state_dict().items() if not name.startswith("layer2.0.conv1")}
    save_file(part, tmp_path / "part.safetensors")
    other = {**part, "layer2.0.conv1.weight": torch.zeros(3, 3)}
    save_file(other, tmp_path / "shape.safetensors")
    cases = [
        ("test_resnet_of_nobody", path, "unknown timm model 'test_resnet_of_nobody'"),
        (
            NAME,
            None,
            f"the published weights of {NAME} are neither in the cache .*: give a local file as encoder_weights",
        ),
        (NAME, tmp_path / "none.pth", r"none\.pth: missing"),
        (NAME, tmp_path / "half.safetensors", r"half\.safetensors: not a whole file of weights"),
        (NAME, tmp_path / "half.pth", r"half\.pth: not a whole file of weights"),
        (NAME, tmp_path / "part.safetensors", f"not weights of {NAME}, expected layer2.0.conv1.weight among them"),
        (NAME, tmp_path / "shape.safetensors", rf"not weights of {NAME} \(size mismatch for layer2.0.conv1.weight"),
    ]
    for name, weights, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            load_encoder(name, weights)
        assert not re.search(r"\n", str(caught.value)), name
