"""The meta weight network: example features in, importance weights out."""

import torch
from torch import Tensor, nn


class MetaWeightNetwork(nn.Module):
    """`w = s · σ(W₂ relu(W₁ f + b₁) + b₂)`, one hidden layer; Shu et al. 2019 (Meta-Weight-Net), as SAMA uses it.

    The output layer starts at zero, so that every example starts with the same weight s/2.

    Args:
        features: number of inputs an example (loss, uncertainty, …).
        hidden_size: width of the hidden layer.
        scale: s, the largest weight; with 2, weights that are not normalised start at 1 (continued pretraining).
    """

    def __init__(self, features: int, hidden_size: int = 100, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.hidden = nn.Linear(features, hidden_size)
        self.output = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features [batch, features] -> weights in (0, scale), [batch]."""
        return self.scale * torch.sigmoid(self.output(torch.relu(self.hidden(features)))).squeeze(-1)


def normalize_by_mean(weights: Tensor) -> Tensor:
    """Weights divided by their batch mean, so that they say which examples matter, not how much all of them do.

    Without this the weights of a young model saturate at 1: early in training every example, right or wrong, helps.
    """
    return weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)
