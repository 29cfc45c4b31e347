"""DARTS: one unrolled step, finite difference (Liu, Simonyan & Yang, ICLR 2019, arXiv 1806.09055, section 2.3)."""

import torch

from sama.hypergradient.difference import Difference, minus_mixed_product, step_along
from sama.hypergradient.evaluation import Arrived, detached, gradients_of_both, moved, untouched
from sama.hypergradient.program import Batch, MicroBatches, Params, Program
from sama.hypergradient.result import Evaluated, Hypergradient


def darts(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    alpha: float = 0.01,
    learning_rate: float = 0.1,
    difference: Difference = "central",
    evaluated: Evaluated | MicroBatches | None = None,
    arrived: Arrived | None = None,
) -> Hypergradient:
    """The hypergradient of `L_meta(θ'(λ), λ)` for one gradient step `θ' = θ − ξ ∂L_base/∂θ(θ, λ)`, ξ the learning rate:

    `∂L_meta/∂λ(θ') − ξ (∂²L_base/∂λ∂θ)(θ) v` with `v = ∂L_meta/∂θ(θ')`, equations 7 and 8 of the paper, with
    `ε = alpha/‖v‖₂` (the paper's alpha is 0.01). Both the step and the perturbed evaluations are taken at θ, the point
    that is given; the step is virtual, θ stays. It is gradient descent whatever the base optimizer is: for another
    one take `itd` with one step, which this equals for SGD to O(ε²). The paper's ξ = 0 ("first order") leaves the
    direct term alone; here ξ > 0.

    Args:
        program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
        alpha: dimensionless size of the perturbation, > 0. learning_rate: ξ, > 0.
        difference: `central`, `one_sided` or `exact`. evaluated, arrived: as in `sama.hypergradient.sama`.

    Raises:
        ValueError: alpha or learning rate is not positive; unknown difference; an operator without forward mode.
    """
    if not learning_rate > 0:
        raise ValueError(f"expected learning_rate > 0, got {learning_rate}")
    with untouched(program) as random_state:
        theta, lam = detached(base, requires_grad=True), detached(meta, requires_grad=True)
        constant = detached(lam, requires_grad=False)
        _, of_base, _ = gradients_of_both(lambda part: program.base_loss(theta, constant, part), batch, theta, {})
        with torch.no_grad():
            ahead = moved(theta, of_base, -learning_rate)
        ahead = detached(ahead, requires_grad=True)
        random_state.restore()
        loss, v, direct = gradients_of_both(lambda part: program.meta_loss(ahead, lam, part), meta_batch, ahead, lam)
        with torch.no_grad():
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
            scale=learning_rate,
            arrived=arrived,
        )
    return Hypergradient(gradient, loss, step.epsilon)
