"""Products `(∂²L_base/∂λ∂θ) v` from first-order passes: central and one-sided difference, forward mode.

For a weighting program all three take the forwards of the base model without a graph, and hold the features of the
weights at θ, because no gradient of the base step flows through them (`docs/deviations.md`): with `δ` the directional
derivative of the losses, the product is `∂/∂λ mean_i w_i(λ; f_i) δ_i`.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sama.hypergradient.evaluation import Arrived, RandomState, differentiable_kernels, gradients, moved, norm_of
from sama.hypergradient.program import Batch, MicroBatches, Params, Program, WeightingProgram, parts, weighted_mean
from sama.hypergradient.result import Evaluated

Difference = Literal["central", "one_sided", "exact"]


class Step(NamedTuple):
    """`epsilon = alpha/‖v‖₂`, `size` the same but 0 where v = 0, `inverse = 1/epsilon` (0 where v = 0); scalars."""

    epsilon: Tensor
    size: Tensor
    inverse: Tensor


def step_along(v: Mapping[str, Tensor], alpha: float, program: Program) -> Step:
    """The step of a difference along v. Where v = 0 there is nothing to follow, and the product comes out as 0.

    ‖v‖ is `program.norm(v)` where the program has one, because other processes hold the rest of v.

    Raises:
        ValueError: alpha is not positive.
    """
    if not alpha > 0:
        raise ValueError(f"expected alpha > 0, got {alpha}")
    length = norm_of(program, v)
    epsilon, zero = alpha / length, torch.zeros_like(length)
    return Step(epsilon, torch.where(length > 0, epsilon, zero), torch.where(length > 0, length / alpha, zero))


class LastPass(NamedTuple):
    """A product but for one backward pass: `scale · (∂ output/∂λ − reference)`, reference None for 0."""

    output: Tensor
    scale: Tensor | None = None
    reference: Mapping[str, Tensor] | None = None


def minus_mixed_product(
    direct: Mapping[str, Tensor],
    program: Program,
    theta: Params,
    lam: Params,
    batch: Batch,
    v: Mapping[str, Tensor],
    step: Step,
    *,
    difference: Difference,
    random_state: RandomState,
    evaluated: Evaluated | MicroBatches | None = None,
    scale: float = 1.0,
    arrived: Arrived | None = None,
) -> dict[str, Tensor]:
    """`direct − scale · (∂²L_base/∂λ∂θ) v`, name by name of λ; the product is the mean over the micro-batches.

    `central`: `[∂L_base/∂λ(θ+εv) − ∂L_base/∂λ(θ−εv)]/2ε`, error O(ε²), two forwards of the base model.
    `one_sided`: `[∂L_base/∂λ(θ+εv) − ∂L_base/∂λ(θ)]/ε`, error O(ε), one forward if `evaluated` has the value at θ.
    `exact`: no ε; a weighting program takes one forward with tangents v, any other the derivative of ⟨∂L_base/∂θ, v⟩.

    Args:
        direct: name -> ∂L_meta/∂λ.
        program, batch: the base loss. theta, lam: name -> leaf that requires a gradient.
        v: name -> direction, shaped like θ. step: `step_along(v, alpha, program)`.
        random_state: every evaluation of the first micro-batch starts from it, those of another one from where the one
            before it ended; `evaluated.random_state` goes before both.
        evaluated: the base step's evaluation at this very θ, for `one_sided`; one a micro-batch.
        arrived: told each name's value as soon as the last backward pass has it.

    Raises:
        ValueError: unknown difference; or `exact`, and an operator of the program has no forward-mode derivative.
    """
    if difference not in get_args(Difference):
        raise ValueError(f"unknown difference {difference!r}: expected one of {', '.join(get_args(Difference))}")
    weighting = isinstance(program, WeightingProgram)
    micro_batches = parts(batch)
    known = [None] * len(micro_batches) if evaluated is None else parts(evaluated)
    product: dict[str, Tensor] = {}
    total: dict[str, Tensor] = {}
    for k, (part, at_theta) in enumerate(zip(micro_batches, known, strict=True)):
        draws = random_state if k == 0 else RandomState()
        if difference == "central":
            prepare = _weighted_central if weighting else _central
            last = prepare(program, theta, lam, part, v, step, draws)
        elif difference == "one_sided":
            prepare = _weighted_one_sided if weighting else _one_sided
            last = prepare(program, theta, lam, part, v, step, draws, at_theta)
        else:
            draws.restore()
            last = (_weighted_exact if weighting else _exact)(program, theta, lam, part, v)

        def add(name: str, gradient: Tensor, last: LastPass = last, final: bool = k == len(micro_batches) - 1) -> None:
            value = gradient if last.reference is None else gradient - last.reference[name]
            value = value if last.scale is None else last.scale * value
            product[name] = product[name] + value if name in product else value
            if final:
                total[name] = direct[name] - (scale / len(micro_batches)) * product[name]
                if arrived is not None:
                    arrived(name, total[name])

        gradients(last.output, lam, arrived=add)
    return {name: total[name] for name in lam}


def _central(program, theta, lam, batch, v, step: Step, random_state) -> LastPass:
    random_state.restore()
    plus = gradients(program.base_loss(moved(theta, v, step.size), lam, batch), lam)
    random_state.restore()
    minus = program.base_loss(moved(theta, v, -step.size), lam, batch)
    return LastPass(minus, -0.5 * step.inverse, plus)


def _weighted_central(program, theta, lam, batch, v, step: Step, random_state) -> LastPass:
    """`δ = (ℓ(θ+εv) − ℓ(θ−εv))/2ε` and `f = (f(θ+εv) + f(θ−εv))/2`, which is f(θ) to O(ε²) without its forward."""
    with torch.no_grad():
        random_state.restore()
        losses_plus, features_plus = program.example_losses(moved(theta, v, step.size), batch)
        random_state.restore()
        losses_minus, features_minus = program.example_losses(moved(theta, v, -step.size), batch)
        slopes = (losses_plus - losses_minus) * (0.5 * step.inverse)
        features = 0.5 * (features_plus + features_minus)
    return LastPass(weighted_mean(program.weights(lam, features), slopes))


def _one_sided(program, theta, lam, batch, v, step: Step, random_state, evaluated) -> LastPass:
    if evaluated is not None and evaluated.of_meta is not None:
        random_state, at_theta = evaluated.random_state, evaluated.of_meta
    else:  # one more forward and backward
        random_state.restore()
        at_theta = gradients(program.base_loss({n: p.detach() for n, p in theta.items()}, lam, batch), lam)
    random_state.restore()
    plus = program.base_loss(moved(theta, v, step.size), lam, batch)
    return LastPass(plus, step.inverse, at_theta)


def _weighted_one_sided(program, theta, lam, batch, v, step: Step, random_state, evaluated) -> LastPass:
    """`δ = (ℓ(θ+εv) − ℓ(θ))/ε` and `f = f(θ)`."""
    with torch.no_grad():
        if evaluated is not None and evaluated.losses is not None and evaluated.features is not None:
            random_state, losses, features = evaluated.random_state, evaluated.losses, evaluated.features
        else:
            random_state.restore()
            losses, features = program.example_losses(theta, batch)
        random_state.restore()
        losses_plus, _ = program.example_losses(moved(theta, v, step.size), batch)
        slopes = (losses_plus - losses) * step.inverse
    return LastPass(weighted_mean(program.weights(lam, features), slopes))


def _exact(program, theta, lam, batch, v) -> LastPass:
    """The derivative of `⟨∂L_base/∂θ, v⟩` by λ: two reverse passes over the whole graph."""
    with differentiable_kernels():
        leaves = {name: p.detach().requires_grad_() for name, p in theta.items()}
        g = gradients(program.base_loss(leaves, lam, batch), leaves, create_graph=True)
        return LastPass(torch.stack([(g[name] * v[name]).sum() for name in v]).sum())


def _weighted_exact(program, theta, lam, batch, v) -> LastPass:
    """`δ = ∂ℓ/∂θ v` and `f = f(θ)` by one forward with tangents v, without a graph."""
    try:
        with forward_ad.dual_level(), torch.no_grad(), differentiable_kernels():
            dual = {n: p.detach() for n, p in theta.items()}
            dual |= {n: forward_ad.make_dual(dual[n], v[n].detach()) for n in v}
            losses, features = program.example_losses(dual, batch)
            slopes, features = _tangent(losses), forward_ad.unpack_dual(features).primal
    except NotImplementedError as error:
        raise ValueError(
            "difference='exact' needs a forward-mode derivative of every operator of the base model, and one has none: "
            f"{str(error).splitlines()[0]} Use difference='central'"
        ) from error
    return LastPass(weighted_mean(program.weights(lam, features), slopes))


def _tangent(output: Tensor) -> Tensor:
    """The directional derivative; 0 where the output does not depend on θ."""
    tangent = forward_ad.unpack_dual(output).tangent
    return torch.zeros_like(output) if tangent is None else tangent
