"""What the implicit methods share: exact products with the Hessian and the mixed derivative of the base loss.

They solve `H p = ∂L_meta/∂θ`, `H = ∂²L_base/∂θ²`, and return `∂L_meta/∂λ − (∂²L_base/∂λ∂θ) p`. The adaptation does
not enter: at a fixed point of `θ ← θ − u(g)`, `(∂u/∂θ)⁻¹ ∂u/∂λ = (D H)⁻¹ D ∂g/∂λ`, and D cancels.

Both derivatives are those of the base gradient `g = ∂L_base/∂θ` as autograd sees it. A weighting program stops the
gradient at the features of its weights, `g = ∂/∂θ mean_i w_i(λ; sg[f_i]) ℓ_i(θ)`, so neither H nor the mixed
derivative has a term through them, as in `sama`; H is then symmetric.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sama.hypergradient.evaluation import (
    detached,
    differentiable_kernels,
    gradients,
    gradients_of_both,
    mean_loss,
    untouched,
)
from sama.hypergradient.program import Batch, Params, Program
from sama.hypergradient.result import Hypergradient

Vector = dict[str, Tensor]
Product = Callable[[Vector], Vector]
Solver = Callable[[Product, Vector], Vector]
"""(x -> Hx, right-hand side) -> p with `H p ≈ right-hand side`."""


class BaseGradient(NamedTuple):
    """`g(θ, λ)` with its graph, and the leaves that it hangs on: name -> tensor."""

    theta: Vector
    lam: Vector
    g: Vector

    def hessian_times(self, x: Mapping[str, Tensor]) -> Vector:
        """`Hx = ∂⟨g, x⟩/∂θ`, shaped like x: like θ, or with a leading dimension for as many products at once."""
        return self._pull_back(self.theta, x)

    def mixed_times(self, x: Mapping[str, Tensor]) -> Vector:
        """`(∂²L_base/∂λ∂θ) x = ∂⟨g, x⟩/∂λ`, shaped like λ."""
        return self._pull_back(self.lam, x)

    def _pull_back(self, leaves: Vector, x: Mapping[str, Tensor]) -> Vector:
        names = [name for name, value in self.g.items() if value.requires_grad]
        first = next(iter(x))
        rows = x[first].shape[: x[first].ndim - self.g[first].ndim]
        zeros = {name: p.new_zeros((*rows, *p.shape)) for name, p in leaves.items()}
        if not names:  # a loss linear in θ, and constant in λ
            return zeros
        values = torch.autograd.grad(
            [self.g[name] for name in names],
            list(leaves.values()),
            grad_outputs=[x[name] for name in names],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=bool(rows),
        )
        return {
            name: zero if value is None else value.detach()
            for (name, zero), value in zip(zeros.items(), values, strict=True)
        }


def implicit(
    program: Program, base: Params, meta: Params, batch: Batch, meta_batch: Batch, solve: Solver
) -> Hypergradient:
    """`∂L_meta/∂λ − (∂²L_base/∂λ∂θ) p` with `p = solve(H, ∂L_meta/∂θ)`; one draw of random numbers for g and H.

    Attention runs with its math kernel: the fused ones have no second derivative. Leaves no trace, like every method.
    """
    with untouched(program) as random_state, differentiable_kernels():
        theta, lam = detached(base, requires_grad=True), detached(meta, requires_grad=True)
        loss, of_base, direct = gradients_of_both(
            lambda part: program.meta_loss(theta, lam, part), meta_batch, theta, lam
        )
        random_state.restore()
        base_loss = mean_loss(lambda part: program.base_loss(theta, lam, part), batch)
        g = gradients(base_loss, theta, create_graph=True)
        step = BaseGradient(theta, lam, g)
        mixed = step.mixed_times(solve(step.hessian_times, of_base))
    return Hypergradient({name: direct[name] - mixed[name] for name in lam}, loss)


def dot(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Tensor:
    """`⟨x, y⟩` over all names, a scalar on the device."""
    return torch.stack([torch.vdot(x[name].reshape(-1), y[name].reshape(-1)) for name in x]).sum()


def plus(x: Mapping[str, Tensor], y: Mapping[str, Tensor], scale: float | Tensor) -> Vector:
    """`x + scale · y`, new tensors."""
    scaled = torch._foreach_mul([y[name] for name in x], scale)
    return dict(zip(x, torch._foreach_add(list(x.values()), scaled), strict=True))
