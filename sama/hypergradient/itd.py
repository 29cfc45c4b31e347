"""Iterative differentiation: reverse mode through an unrolled inner loop (Franceschi et al., ICML 2017)."""

from sama.hypergradient.evaluation import detached, differentiable_kernels, gradients, mean_loss, untouched
from sama.hypergradient.program import Batch, Params, Program
from sama.hypergradient.result import Hypergradient
from sama.hypergradient.unrolled import DifferentiableUpdate


def itd(
    program: Program,
    base: Params,
    meta: Params,
    batch: Batch,
    meta_batch: Batch,
    *,
    update: DifferentiableUpdate,
    inner_steps: int = 1,
) -> Hypergradient:
    """`d/dλ L_meta(θ_K(λ), λ)` for `θ_{k+1} = θ_k − u(∂L_base/∂θ(θ_k, λ; batch); state_k)`, `θ_0 = θ`, K inner steps.

    Reverse mode through the loop (arXiv 1703.01785, section 3; Maclaurin et al., ICML 2015, before them). Memory grows
    with K, and each step costs about as much again on the way back. It looks ahead: it starts at the parameters and the
    optimizer state that are given, holds its batch, and leaves both as they were. u is the base optimizer itself,
    momentum, second moments, weight decay and parameter groups included, so no adaptation is needed. Each inner step
    draws random numbers of its own, the first ones the same as every other method's.

    The features of a weighting program are recomputed at each θ_k with the gradient stopped there, as in the base step
    of `BilevelLoop`: the derivative holds them, like `sama` does.

    Args:
        program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
        update: the base optimizer's step as a differentiable function. inner_steps: K >= 1.

    Raises:
        ValueError: no inner step.
    """
    if inner_steps < 1:
        raise ValueError(f"expected inner_steps >= 1, got {inner_steps}")
    with untouched(program), differentiable_kernels():
        theta, lam = detached(base, requires_grad=True), detached(meta, requires_grad=True)
        state = update.state()
        for _ in range(inner_steps):
            base_loss = mean_loss(lambda part, theta=theta: program.base_loss(theta, lam, part), batch)
            g = gradients(base_loss, theta, create_graph=True)
            theta, state = update(theta, g, state)
        loss = mean_loss(lambda part: program.meta_loss(theta, lam, part), meta_batch)
        gradient = gradients(loss, lam)
    # clones, because autograd may hand out one tensor for two names
    return Hypergradient({name: value.clone() for name, value in gradient.items()}, loss.detach())
