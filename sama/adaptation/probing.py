"""Adaptation by probing: differences of the update itself, for optimizers whose step cannot be differentiated."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sama.adaptation.replica import REMEDY, Gradients, convert, held, replicate, same_draws, take_step
from sama.adaptation.sign import warn_of_zero

STEP = 1e-3  # of the difference, relative to the gradient
SMALLEST = 1e-3  # a coordinate's gradient counts as at least this part of its tensor's root mean square
AGREEMENT = 0.05  # between the differences of two step sizes; more is a kink or a jump
DRAWS = 2  # random halves of the coordinates that must not move the other half

After = Callable[[Gradients], list[Tensor]]
"""Shifts of the gradients -> the parameters after a step."""


def probing(
    before: torch.optim.Optimizer, gradients: Gradients, vectors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """`Dᵀx` with D from central differences, every coordinate at once: `Dᵢ = [u(g+h) − u(g−h)]ᵢ / 2hᵢ`.

    That is right only if the update acts on each coordinate by itself. So first random halves of the coordinates of
    every tensor are moved, then their complements: the rest must step exactly as before, bit for bit. This is asked at
    every call, at the present state, since couplings come and go (clipping, trust ratios).

    All steps are those of copies in float64, with the same random draws. `h = 10⁻³·max(|g|, rms(g)/1000)`; the
    differences at h and h/2 are extrapolated to h = 0 (an error of O(h⁴)). Where they disagree by more than 5 % the
    update has a kink or a jump between them, a changing sign or a second moment that was 0, and D = 0: the rule of the
    closed forms, without evidence nothing. Cost: 9 steps of the optimizer on copies; memory: one copy more.

    Raises:
        ValueError: the update of one coordinate depends on others, or a copy cannot step, or not in float64.
    """
    twin = replicate(before)
    for parameter in held(twin):
        parameter.data = parameter.data.double()
    convert(twin, lambda t: t.double() if t.is_floating_point() else t)
    double = [None if g is None else g.double() for g in gradients]
    present = [g for g in double if g is not None]
    sizes = [g.square().mean().sqrt() for g in present]
    largest = torch.stack([size.cpu() for size in sizes]).max() if sizes else torch.zeros(())
    fallback = float(largest) or 1.0
    h = [None if g is None else STEP * _scale(g, fallback) for g in double]
    with same_draws(twin) as rewind:

        def after(shifts: Gradients) -> list[Tensor]:
            rewind()
            copy = replicate(twin)
            moved = [None if g is None else g if s is None else g + s for g, s in zip(double, shifts, strict=True)]
            parameters = held(copy)
            take_step(copy, parameters, moved)
            return [p.detach() for p in parameters]

        _require_coordinatewise(before, after, h)
        wide = _differences(before, after, h, 1.0)
        narrow = _differences(before, after, h, 0.5)
    products: list[Tensor | None] = [None if x is None else torch.zeros_like(x) for x in vectors]
    for k, (x, size, parameter) in enumerate(zip(vectors, h, held(twin), strict=True)):
        if x is not None and size is not None:
            rounding = 16 * torch.finfo(torch.float64).eps * parameter.abs() / size
            apart = (wide[k] - narrow[k]).abs()
            smooth = apart <= AGREEMENT * torch.maximum(wide[k].abs(), narrow[k].abs()) + rounding
            diagonal = torch.where(smooth, (4 * narrow[k] - wide[k]) / 3, torch.zeros_like(apart))
            products[k] = diagonal.to(x.dtype) * x
    if not any(bool(p.any()) for p in products if p is not None):
        warn_of_zero(before)
    return products


def _scale(gradient: Tensor, fallback: float) -> Tensor:
    """The size that a coordinate's gradient is measured by, > 0."""
    smallest = SMALLEST * gradient.square().mean().sqrt()
    return gradient.abs().clamp(min=float(smallest) or SMALLEST * fallback)


def _differences(before: torch.optim.Optimizer, after: After, h: Gradients, factor: float) -> list[Tensor]:
    """−[θ(g+fh) − θ(g−fh)]/2fh, 0 where there is no gradient.

    Raises:
        ValueError: the optimizer computes in float32 whatever it is given: differences would be noise.
    """
    plus = after([None if s is None else factor * s for s in h])
    minus = after([None if s is None else -factor * s for s in h])
    changed = [(p, p != m) for p, m in zip(plus, minus, strict=True)]
    coarse = all(bool((p[where].float().double() == p[where]).all()) for p, where in changed)
    if coarse and any(bool(where.any()) for _, where in changed):
        raise ValueError(
            f"no adaptation serves the optimizer {type(before).__name__}: it steps a copy in float64 with the "
            "precision of float32, too coarse for differences; " + REMEDY
        )
    return [
        torch.zeros_like(p) if s is None else (m - p) / (2 * factor * s) for p, m, s in zip(plus, minus, h, strict=True)
    ]


def _require_coordinatewise(optimizer: torch.optim.Optimizer, after: After, h: Gradients) -> None:
    """Refuse an optimizer whose step on one half of the coordinates sees the gradient of the other."""
    generator = torch.Generator().manual_seed(0)  # of its own: the global one is not touched
    rest = after([None] * len(h))
    for _ in range(DRAWS):
        halves = [None if s is None else _half(s, generator) for s in h]
        for side in (True, False):
            chosen = [None if half is None else half if side else ~half for half in halves]
            shifts = [
                None if s is None or half is None else torch.where(half, s, torch.zeros_like(s))
                for s, half in zip(h, chosen, strict=True)
            ]
            found = after(shifts)
            for there, here, half in zip(rest, found, chosen, strict=True):
                if half is not None and bool(((there != here) & ~half).any()):
                    raise ValueError(
                        f"no adaptation serves the optimizer {type(optimizer).__name__}: its update mixes coordinates "
                        "(a probe of some gradients moved the others), so differences do not give D; " + REMEDY
                    )


def _half(like: Tensor, generator: torch.Generator) -> Tensor:
    """A random half of the coordinates, so that any two of a pair are parted; of a single one, chance decides."""
    count = like.numel()
    order = torch.randperm(count, generator=generator)
    chosen = count // 2 if count > 1 else int(torch.randint(2, (), generator=generator))
    mask = torch.zeros(count, dtype=torch.bool)
    mask[order[:chosen]] = True
    return mask.reshape(like.shape).to(like.device)
