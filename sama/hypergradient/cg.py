"""Implicit differentiation by conjugate gradients (Pedregosa, ICML 2016; iMAML, Rajeswaran et al., NeurIPS 2019)."""

import torch

from sama.hypergradient.curvature import Product, Vector, dot, implicit, plus
from sama.hypergradient.program import Batch, Params, Program
from sama.hypergradient.result import Hypergradient


def cg(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    iterations: int = 5,
    tolerance: float = 1e-10,
    regularization: float = 0.0,
) -> Hypergradient:
    """`∂L_meta/∂λ − (∂²L_base/∂λ∂θ) p` with `(H + ρI) p = ∂L_meta/∂θ` solved by conjugate gradients from p = 0.

    Hestenes & Stiefel 1952. In exact arithmetic it ends after as many iterations as `H + ρI` has distinct eigenvalues.
    One product serves both the step length `⟨r,r⟩/⟨d,Ad⟩` and the residual, and the regularisation is inside of it:
    public implementations that scale the product in one of the two places only are wrong away from scale 1.
    H is indefinite for a network away from a minimum; a direction without positive curvature ends the iteration, as
    does a residual of `tolerance · ‖∂L_meta/∂θ‖₂`. Both are decided on the device, without synchronisation: a
    finished iteration goes on with steps of length zero.

    Args:
        program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
        iterations: at most that many, >= 1, one Hessian product each. tolerance: relative, >= 0.
        regularization: ρ >= 0; above minus the smallest eigenvalue of H the system is positive definite.

    Raises:
        ValueError: no iteration, or a negative tolerance or regularisation.
    """
    if iterations < 1:
        raise ValueError(f"expected iterations >= 1, got {iterations}")
    for name, value in {"tolerance": tolerance, "regularization": regularization}.items():
        if not value >= 0:
            raise ValueError(f"expected {name} >= 0, got {value}")

    def solve(hessian: Product, v: Vector) -> Vector:
        solution = {name: torch.zeros_like(x) for name, x in v.items()}
        residual, direction, squared = v, v, dot(v, v)
        enough = squared * tolerance**2
        going = squared > enough
        zero = torch.zeros_like(squared)
        for _ in range(iterations):
            product = plus(hessian(direction), direction, regularization)
            curvature = dot(direction, product)
            going = going & (squared > enough) & (curvature > 0)
            length = torch.where(going, squared / curvature, zero)
            solution = plus(solution, direction, length)
            residual = plus(residual, product, -length)
            before, squared = squared, dot(residual, residual)
            direction = plus(residual, direction, torch.where(going, squared / before, zero))
        return solution

    return implicit(program, base, meta, batch, meta_batch, solve)
