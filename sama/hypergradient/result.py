"""What every hypergradient method returns, and what a loop can tell it about the base step it follows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sama.hypergradient.evaluation import RandomState

Adaptation = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
"""x -> Dᵀx with D = ∂u/∂g of the base optimizer's last step (`sama.adaptation.adapt`); it may empty the dict of x."""


class Hypergradient(NamedTuple):
    """The outcome of a method; scalars stay on their device.

    `gradient`: name -> dL_meta/dλ. `meta_loss`: the meta loss that was differentiated, at θ or at the unrolled θ.
    `epsilon`: step of the difference, inf where v = 0, None where no difference was taken. `displacement`: name ->
    what the loop shall add to θ afterwards, None unless asked for.
    """

    gradient: dict[str, Tensor]
    meta_loss: Tensor
    epsilon: Tensor | None = None
    displacement: dict[str, Tensor] | None = None


@dataclass(frozen=True)
class Evaluated:
    """The base step's own evaluation of its loss at θ, before its update; it saves a method that forward.

    `random_state`: as it was before that forward, so that another one can draw the same masks. A weighting program's
    step leaves `losses` [batch, …] and `features` [batch, k]; any other leaves `of_meta`, name -> ∂L_base/∂λ(θ).
    """

    random_state: RandomState
    losses: Tensor | None = None
    features: Tensor | None = None
    of_meta: Mapping[str, Tensor] | None = None
