"""The mean of the weighting form: one loss an example as ever, several are summed, and nothing is broadcast."""

import pytest
import torch

from sama.hypergradient.program import weighted_mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_loss_an_example_is_the_mean_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    weights, losses = torch.rand(2, 1001, generator=generator).to(dtype)
    assert torch.equal(weighted_mean(weights, losses), (weights * losses).mean())


@pytest.mark.parametrize("shape", [(7, 3), (7, 2, 4)])
def test_several_losses_of_an_example_are_summed(shape):
    generator = torch.Generator().manual_seed(0)
    weights, losses = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    expected = sum((w * x).sum().item() for w, x in zip(weights, losses, strict=True)) / 7
    assert weighted_mean(weights, losses).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(3,), (1,), (3, 1)])
def test_shapes_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match=r"weights of the losses' shape \[3, 3\], got \["):
        weighted_mean(torch.ones(shape), torch.ones(3, 3))
