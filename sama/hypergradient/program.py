"""The bilevel program: two losses over named parameters, and its weighting form.

`min_λ L_meta(θ*(λ), λ)` subject to `θ*(λ) = argmin_θ L_base(θ, λ)`. Parameters are mappings from name to tensor, so
that a hypergradient method can evaluate a loss anywhere without writing to a module.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

Params = Mapping[str, Tensor]
Batch = Any


class MicroBatches(tuple[Any, ...]):
    """A batch in equal parts (gradient accumulation): its loss is the mean of theirs.

    First-order methods evaluate and differentiate one part after the other, so that the activations of one are held at
    a time; second-order methods need the graph of all. Each part draws random numbers of its own.
    """

    __slots__ = ()


def parts(batch: Batch) -> Sequence[Batch]:
    """The micro-batches of a batch; a batch that is none is its only part."""
    return batch if isinstance(batch, MicroBatches) else (batch,)


class Program(Protocol):
    """What a hypergradient method needs to know of a bilevel problem."""

    def base_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        """`L_base(θ, λ; batch)`, a scalar."""
        ...

    def meta_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        """`L_meta(θ, λ; batch)`, a scalar."""
        ...

    def buffers(self) -> Iterable[Tensor]:
        """Tensors that a forward pass may write (BatchNorm statistics); a method leaves them as they were."""
        ...


@runtime_checkable
class WeightingProgram(Program, Protocol):
    """A program in which λ enters through example weights alone: `L_base = mean_i w_i(λ; sg[f_i(θ)]) · ℓ_i(θ)`.

    sg stops the gradient: the features f choose the weights but no gradient flows through them. This form lets a
    method take all forwards of the base model without a graph and differentiate the small meta network only.

    An example may have several losses, each with a weight of its own, and `·` sums over them (`weighted_mean`): one
    loss a class, `−log p_ic`, with weights `w_i ỹ_ic` is the weighted cross-entropy against a soft label ỹ.
    """

    def example_losses(self, base: Params, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses `ℓ(θ)` [batch, …] and features `f(θ)` [batch, features]."""
        ...

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """Weights `w(λ; f)`, shaped like the losses."""
        ...


def weighted_mean(weights: Tensor, losses: Tensor) -> Tensor:
    """`mean_i Σ_c w_ic ℓ_ic`, both [batch, …]: the sum of what an example has, and the mean over the examples.

    Raises:
        ValueError: the shapes differ; broadcast, they would give a number without a meaning.
    """
    if weights.shape != losses.shape:
        raise ValueError(f"expected weights of the losses' shape {list(losses.shape)}, got {list(weights.shape)}")
    products = weights * losses
    return (products if products.ndim == 1 else products.flatten(1).sum(1)).mean()
