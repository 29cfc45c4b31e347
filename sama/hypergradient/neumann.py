"""Implicit differentiation by a truncated Neumann series (Lorraine et al., AISTATS 2020, arXiv 1911.02590)."""

import torch

from sama.hypergradient.curvature import Product, Vector, implicit, plus
from sama.hypergradient.program import Batch, Params, Program
from sama.hypergradient.result import Hypergradient


def neumann(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    iterations: int = 5,
    learning_rate: float = 0.1,
) -> Hypergradient:
    """`∂L_meta/∂λ − (∂²L_base/∂λ∂θ) p` with `p = η Σ_{j=0…K} (I − ηH)ʲ ∂L_meta/∂θ`, K iterations, η the learning rate.

    Algorithm 3 of the paper, whose returned sum is multiplied by η too: the series inverts ηH, and `H⁻¹ = η (ηH)⁻¹`.
    It converges to the implicit hypergradient when H is positive definite and `η < 2/λ_max(H)`, with error
    `(1 − η λ_min)^(K+1)`; beyond that bound it diverges. K = 0 is `η ∂L_meta/∂θ`, SAMA's direction under SGD.

    Args:
        program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
        iterations: K >= 0, one Hessian product each. learning_rate: η > 0.

    Raises:
        ValueError: negative iterations, or a learning rate that is not positive.
    """
    if iterations < 0:
        raise ValueError(f"expected iterations >= 0, got {iterations}")
    if not learning_rate > 0:
        raise ValueError(f"expected learning_rate > 0, got {learning_rate}")

    def solve(hessian: Product, v: Vector) -> Vector:
        term, total = v, v
        for _ in range(iterations):
            term = plus(term, hessian(term), -learning_rate)
            total = plus(total, term, 1.0)
        return dict(zip(total, torch._foreach_mul(list(total.values()), learning_rate), strict=True))

    return implicit(program, base, meta, batch, meta_batch, solve)
