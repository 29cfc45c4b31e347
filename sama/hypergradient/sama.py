"""SAMA: the hypergradient from first-order passes (Choe et al., NeurIPS 2023, arXiv 2310.05674, section 3)."""

import torch
from torch import Tensor

from sama.hypergradient.difference import Difference, minus_mixed_product, step_along
from sama.hypergradient.evaluation import Arrived, detached, gradients_of_both, untouched
from sama.hypergradient.program import Batch, MicroBatches, Params, Program
from sama.hypergradient.result import Adaptation, Evaluated, Hypergradient


def sama(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    adapt: Adaptation,
    alpha: float,
    difference: Difference = "central",
    displace: bool = False,
    evaluated: Evaluated | MicroBatches | None = None,
    arrived: Arrived | None = None,
) -> Hypergradient:
    """`∂L_meta/∂λ − [∂L_base/∂λ(θ+εv) − ∂L_base/∂λ(θ−εv)]/2ε` with `v = Dᵀ ∂L_meta/∂θ` and `ε = alpha/‖v‖₂`.

    The base Jacobian is taken as the identity; `adapt` maps `x` to `Dᵀx` (`sama.adaptation.adapt` of the base
    optimizer). The paper has the central difference alone. Nothing is written: no
    parameter, no `.grad`, no buffer, no random state. All evaluations of the base loss draw the same random numbers.
    For a weighting program they run without a graph, with the features of the weights held at θ (`docs/deviations.md`).
    In forwards F of the base batch, and with a meta batch of its size: 3F for v, and 2F, 1F or a forward with tangents
    for the difference; a base step is 3F.

    Args:
        program: the two losses.
        base: name -> θ.
        meta: name -> λ.
        batch: base batch, the one of the last base step. meta_batch: meta batch. Both may be `MicroBatches`.
        adapt: x -> Dᵀx.
        alpha: dimensionless size of the perturbation, > 0.
        difference: `central` (error O(ε²)); `one_sided` (O(ε)), which reuses `evaluated`; `exact`, no ε.
        displace: return `displacement = −εv`. A loop that adds it to θ leaves the base parameters at θ − εv, as
            the reference code can (compare the value functions of BOME, Liu et al. 2022, and F2SA, Kwon et al. 2023).
        evaluated: the base step's evaluation at `base`, that is before its update, one a micro-batch; without it
            `one_sided` takes one.
        arrived: told each name's hypergradient while the last backward pass still runs, so that a reduction over
            processes can overlap it.

    Raises:
        ValueError: alpha is not positive; unknown difference; an operator without forward mode.
    """
    with untouched(program) as random_state:
        theta, lam = detached(base, requires_grad=True), detached(meta, requires_grad=True)
        loss, of_base, direct = gradients_of_both(
            lambda part: program.meta_loss(theta, lam, part), meta_batch, theta, lam
        )
        with torch.no_grad():
            v = adapt(of_base)
            del of_base  # of the size of θ, like v
            step = step_along(v, alpha, program)
        gradient = minus_mixed_product(
            direct,
            program,
            theta,
            lam,
            batch,
            v,
            step,
            difference=difference,
            random_state=random_state,
            evaluated=evaluated,
            arrived=arrived,
        )
    displacement: dict[str, Tensor] | None = None
    if displace:
        displacement = dict(zip(v, torch._foreach_mul(list(v.values()), -step.size), strict=True))
    return Hypergradient(gradient, loss, step.epsilon, displacement)


def sama_na(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    alpha: float,
    difference: Difference = "central",
    displace: bool = False,
    evaluated: Evaluated | MicroBatches | None = None,
    arrived: Arrived | None = None,
) -> Hypergradient:
    """SAMA without adaptation, the paper's ablation SAMA-NA: `v = ∂L_meta/∂θ`; otherwise as `sama`."""
    return sama(
        program,
        base,
        meta,
        batch,
        meta_batch,
        adapt=lambda x: x,
        alpha=alpha,
        difference=difference,
        displace=displace,
        evaluated=evaluated,
        arrived=arrived,
    )
