"""Adaptation of timm.optim.Muon: matrices as in `muon`, everything else by its Adam fallbacks."""

import sys
from collections.abc import Sequence

from torch import Tensor

from sama.adaptation.muon import averaged, orthogonalised
from sama.adaptation.quotient import quotient
from sama.adaptation.step import LastStep, full


def timm_muon(step: LastStep, vector: Tensor) -> Tensor:
    """`u = lr·κ·NS(d)` for what timm orthogonalises (see `sama.adaptation.muon`), Adam's or NAdamW's step for the rest.

    Kernels of convolutions are flattened to `[out, in·h·w]`, or taken position by position (`conv_mode="batched"`).
    Coefficients and κ are read from the module of the optimizer, which is loaded if one of its objects is here.

    Raises:
        ValueError: `algo="adamuon"`, which is not covered.
    """
    if not step.state.get("use_muon", False):
        return _fallback(step, vector)
    group = step.group
    if group.get("algo", "muon") != "muon":
        raise ValueError(
            f"the adaptation of timm's Muon covers algo='muon', got {group['algo']!r}: "
            "use that one, or the method sama_na"
        )
    module = sys.modules[type(step.optimizer).__module__]
    direction, slope = averaged(step)
    batched = group["conv_mode"] == "batched" and direction.ndim > 2
    matrix = _matrices(direction, batched)
    factor = module.get_lr_scale(matrix.shape, group["adjust_lr_fn"]) if group["adjust_lr_fn"] else 1.0
    if batched and group["normalize_spatial"]:
        factor *= matrix.shape[0] ** -0.5
    eps = group["eps"]
    scaled = group.get("scale_eps", False)
    if scaled:
        eps = eps * (matrix.shape[-1] / matrix.shape[-2]) ** 0.5
    product = orthogonalised(
        matrix,
        _matrices(step.option("lr") * factor * full(vector), batched),
        _schedule(module.resolve_ns_coefficients(group["ns_coefficients"], module._COEFFICIENTS), group["ns_steps"]),
        eps=eps,
        margin=group["safety_factor"],
        add_eps=scaled,
    )
    if batched:
        product = product.permute(1, 2, 0)
    return slope * product.reshape(direction.shape)


def _matrices(tensor: Tensor, batched: bool) -> Tensor:
    """`[out, in, …]` -> `[out, in·…]`, or `[…, out, in]`."""
    if batched:
        return tensor.flatten(2).permute(2, 0, 1)
    return tensor.flatten(1)


def _schedule(coefficients: Sequence, steps: int) -> list:
    """The first `steps` triples, the last one repeated."""
    return [*coefficients[:steps], *([coefficients[-1]] * (steps - len(coefficients)))]


def _fallback(step: LastStep, vector: Tensor) -> Tensor:
    """AdamW, or with Nesterov timm's NAdamW, `u = lr·(β₁m̂ + (1−β₁)ĝ)/(√ŝ+ϵ)`; `lr·fallback_lr_scale`."""
    (beta1, beta2), count, gradient = step.betas, step.count, full(step.raw_gradient)
    corrected1, corrected2 = 1 - beta1**count, 1 - beta2**count
    average, slope = step.moment("exp_avg"), 1 - beta1
    if step.group["nesterov"]:
        average, slope = average.lerp(gradient, 1 - beta1), beta1 * (1 - beta1) + (1 - beta1)
    second = step.moment("exp_avg_sq") / corrected2
    diagonal = quotient(
        average / corrected1,
        slope / corrected1,
        second,
        2 * (1 - beta2) * gradient / corrected2,
        eps=step.option("eps"),
        evidence=second,
        exact=step.exact,
    )
    return step.option("lr") * step.group["fallback_lr_scale"] * diagonal * vector
