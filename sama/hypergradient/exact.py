"""Implicit differentiation with the Hessian written out, for problems small enough to be an oracle."""

import math

import torch

from sama.hypergradient.curvature import Product, Vector, implicit
from sama.hypergradient.program import Batch, Params, Program
from sama.hypergradient.result import Hypergradient

CHUNK = 64  # rows of the Hessian at once: as many copies of the activations


def exact(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    regularization: float = 0.0,
    limit: int = 2000,
) -> Hypergradient:
    """`∂L_meta/∂λ − (∂²L_base/∂λ∂θ) (H + ρI)⁻¹ ∂L_meta/∂θ`, the implicit function theorem with a dense solve.

    Bengio, Neural Computation 2000; SAMA, section 2, before its approximations. At a minimiser of the base loss and
    ρ = 0 this is the true hypergradient; elsewhere it is what the theorem gives as if θ were one. n parameters cost n
    Hessian products, n² memory and n³ time.

    Args:
        program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
        regularization: ρ >= 0. limit: the most parameters that are accepted.

    Raises:
        ValueError: more than `limit` base parameters, a negative regularisation, or `H + ρI` is singular.
    """
    if not regularization >= 0:
        raise ValueError(f"expected regularization >= 0, got {regularization}")
    size = sum(p.numel() for p in base.values())
    if size > limit:
        raise ValueError(
            f"exact solves a dense system of all base parameters: expected at most {limit}, got {size}; "
            "use cg or neumann, or raise limit"
        )

    def solve(hessian: Product, v: Vector) -> Vector:
        flat = torch.cat([value.reshape(-1) for value in v.values()])
        identity = torch.eye(size, dtype=flat.dtype, device=flat.device)
        rows = []
        for units in identity.split(CHUNK):
            products = hessian(_split(units, v))
            rows.append(torch.cat([value.reshape(len(units), -1) for value in products.values()], dim=1))
        try:
            return _split(torch.linalg.solve(torch.cat(rows) + regularization * identity, flat), v)
        except torch.linalg.LinAlgError as error:
            raise ValueError(
                "exact: the Hessian of the base loss, with the regularization on its diagonal, is singular (parameters "
                "without effect, a softmax head): expected a larger regularization than "
                f"{regularization}, for instance 1e-3"
            ) from error

    return implicit(program, base, meta, batch, meta_batch, solve)


def _split(entries: torch.Tensor, like: Vector) -> Vector:
    """Entries [..., n] as tensors of these names and shapes, behind the leading dimensions."""
    parts = entries.split([math.prod(value.shape) for value in like.values()], dim=-1)
    return {
        name: part.reshape(*entries.shape[:-1], *value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }
