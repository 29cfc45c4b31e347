"""What the weighting programs share: a base model, whose example losses a meta network weights."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sama.hypergradient.program import Params, weighted_mean
from sama.networks.meta_weight import normalize_by_mean

Inputs = Tensor | Mapping[str, Tensor]
"""What a model takes as its one argument: a tensor, or tensors by name (the ids and the mask of a text)."""


@dataclass(frozen=True)
class LabelledBatch:
    """`inputs` [batch, …], `labels` [batch] or class probabilities [batch, classes], and what a program prepared.

    `indices` [batch] say which examples these are; the programs do not look at them. `teacher`: the teacher's class
    probabilities [batch, classes] (`Reweight`).
    """

    inputs: Inputs
    labels: Tensor
    indices: Tensor
    teacher: Tensor | None = None


class Weighted(ABC):
    """`L_base = mean_i Σ_c w_ic(λ; sg[f_i]) ℓ_ic(θ)`, `L_meta` = mean cross-entropy on the meta batch.

    Args:
        model: base model, inputs -> logits [batch, classes].
        network: meta network; what it takes and gives is up to the program.
        normalize: divide the weights of the examples by their batch mean.
    """

    def __init__(self, model: nn.Module, network: nn.Module, *, normalize: bool) -> None:
        self.model, self.network, self.normalize = model, network, normalize

    @abstractmethod
    def example_losses(self, base: Params, batch: Any) -> tuple[Tensor, Tensor]:
        """Losses [batch, …] and detached features [batch, k]."""

    @abstractmethod
    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """Weights, shaped like the losses."""

    def buffers(self) -> Iterable[Tensor]:
        """What a forward pass may write."""
        return [*self.model.buffers(), *self.network.buffers()]

    def prepare(self, batch: Any) -> Any:
        """What is computed once a base batch and shared by all evaluations of it; here nothing."""
        return batch

    def outputs(self, base: Params, inputs: Inputs, *which: str) -> Tensor:
        """The model's outputs at θ; `which` goes to the model after the inputs."""
        return self._forward(dict(base), (inputs, *which))

    def _forward(self, base: dict[str, Tensor], arguments: tuple[Any, ...]) -> Tensor:
        return functional_call(self.model, base, arguments)

    def compile(self, **options: Any) -> None:
        """Compile the forward of the base model with `torch.compile` and its options.

        First-order methods alone can be used then: what is compiled has neither second nor forward-mode derivatives.
        """
        self._forward = torch.compile(self._forward, **options)

    def normalized(self, weights: Tensor) -> Tensor:
        """Weights [batch] divided by their mean if `normalize`, else as they are."""
        return normalize_by_mean(weights) if self.normalize else weights

    def base_loss(self, base: Params, meta: Params, batch: Any) -> Tensor:
        """Weighted mean of the losses."""
        losses, features = self.example_losses(base, batch)
        return weighted_mean(self.weights(meta, features), losses)

    def meta_loss(self, base: Params, meta: Params, batch: LabelledBatch) -> Tensor:
        """Mean cross-entropy on the meta batch."""
        return cross_entropy(self.outputs(base, batch.inputs), batch.labels)
