"""SAMA by autodiff of a base loss that a test has written out, with what the weights see given as constants."""

import pytest
import torch
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from sama.hypergradient import method
from tests.oracles import agreement


def randomized(module, seed: int, scale: float = 0.5):
    """name -> parameter-shaped noise in float64; no symmetry or zero of an initialisation can hide an error."""
    generator = torch.Generator().manual_seed(seed)
    return {n: scale * torch.randn(p.shape, generator=generator).double() for n, p in module.named_parameters()}


def check_hypergradient(program, model, loss, theta, lam, batch, meta_batch, difference):
    """`loss(θ, λ)` is the base loss written out; compares direction and magnitude of `−∂²L_base/∂λ∂θ · v`."""
    generator = torch.Generator().manual_seed(9)
    diagonal = {n: 0.1 + torch.rand(p.shape, generator=generator).double() for n, p in theta.items()}
    of_base = grad(lambda t: cross_entropy(functional_call(model, t, (meta_batch.inputs,)), meta_batch.labels))(theta)
    v = {n: diagonal[n] * of_base[n] for n in theta}
    slope = grad(lambda m: jvp(lambda t: loss(t, m), (theta,), (v,))[1])(lam)
    found = method("sama", difference=difference, alpha=1e-4)(
        program, theta, lam, batch, meta_batch, adapt=lambda x: {n: diagonal[n] * x[n] for n in x}
    )
    truth = {n: -slope[n] for n in lam}
    assert all(truth[n].norm() > 1e-6 for n in lam)  # every part of λ takes part
    cosine, ratio = agreement(found.gradient, truth)
    assert (cosine, ratio) == pytest.approx((1.0, 1.0), abs=1e-7 if difference == "central" else 1e-12)
    for name, value in truth.items():
        torch.testing.assert_close(found.gradient[name], value, rtol=1e-5, atol=1e-9)
