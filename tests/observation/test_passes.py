"""Gradient norms are exact and of single examples; no scoring pass depends on how it is cut into batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from sama.images import ImageExamples
from sama.networks.classifiers import build_classifier
from sama.observation.features import penultimate_features
from sama.observation.gradient_norms import gradient_norms
from sama.training import predict
from tests.observation.test_recorder import pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def convolutional() -> nn.Module:
    torch.manual_seed(0)
    model = build_classifier("test_resnet", classes=4, channels=1, image_size=8, small_stem=True, drop_rate=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)  # type: ignore[arg-type]
    return model.train()


def images(n=6, size=8) -> ImageExamples:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (n, 1, size, size), generator=generator, dtype=torch.uint8)
    return ImageExamples(pixels, torch.randint(0, 4, (n,), generator=generator), (0.5,), (0.25,))


def test_gradient_norms_of_softmax_regression_in_closed_form():
    """`∂ℓ/∂W = (p − e_y) xᵀ`, `∂ℓ/∂b = p − e_y`: the norm is `‖p − e_y‖ √(‖x‖² + 1)`."""
    examples, model = pictures(), nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    inputs = examples.inputs(torch.arange(23), CPU).flatten(1)
    with torch.no_grad():
        errors = model(inputs).softmax(dim=-1) - one_hot(examples.labels, 4)
    expected = errors.norm(dim=1) * (inputs.square().sum(dim=1) + 1).sqrt()
    for chunk in (1, 10, 23):  # of 10: the last has three, and a mean over it would be three times another
        found = gradient_norms(model, examples, CPU, chunk_size=chunk)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_gradient_norms_are_those_of_one_example_after_another(convolutional):
    examples = images()
    found = gradient_norms(convolutional, examples, CPU, chunk_size=4)
    assert convolutional.training
    convolutional.eval()
    for k in range(len(examples)):
        loss = cross_entropy(convolutional(examples.inputs(torch.tensor([k]), CPU)), examples.labels[k : k + 1])
        gradients = torch.autograd.grad(loss, list(convolutional.parameters()))
        alone = sum(gradient.double().square().sum() for gradient in gradients) ** 0.5
        np.testing.assert_allclose(found[k], alone, rtol=1e-4)
    convolutional.train()


def test_frozen_parameters_have_no_part_in_the_norm():
    examples, model = pictures(), nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    whole = gradient_norms(model, examples, CPU)
    model[1].bias.requires_grad_(False)
    assert (gradient_norms(model, examples, CPU) < whole).all()


def test_features_are_what_the_last_layer_sees(convolutional):
    examples = images()
    features = penultimate_features(convolutional, examples, CPU)
    assert convolutional.training
    logits = convolutional.get_submodule("fc")(features)
    torch.testing.assert_close(logits, predict(convolutional, examples, CPU))


def test_features_of_a_strange_model_are_refused():
    with pytest.raises(ValueError, match="Linear has no forward_features and forward_head: expected a timm classifier"):
        penultimate_features(nn.Linear(2, 2), pictures(), CPU)


@settings(max_examples=5, deadline=None)
@given(batch_size=st.integers(1, 7), seed=st.integers(0, 1000))
def test_no_pass_depends_on_batch_size_or_order(convolutional, batch_size, seed):
    examples = images()
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(examples)))
    assert isinstance(examples.images, torch.Tensor)
    turned = ImageExamples(examples.images[order], examples.labels[order], examples.mean, examples.std)
    for say in (predict, penultimate_features, gradient_norms):
        whole, parts = say(convolutional, examples, CPU), say(convolutional, turned, CPU, batch_size)
        torch.testing.assert_close(parts, whole[order], rtol=1e-4, atol=1e-5)
