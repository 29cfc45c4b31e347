"""Label correction: the correction network, and its union with a weight network."""

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax


class CorrectionNetwork(nn.Module):
    """`ỹ = (1 − m) y + m q`: the weak label y, mixed with a label q of the network's own by a share m.

    `m = σ(…)` and `q = softmax(…)` are the outputs of one hidden layer over the example's representation and y, in the
    manner of Meta Label Correction (Zheng et al., AAAI 2021), which has q alone. The output layer starts at zero but
    for the bias of m: at first every label is y with 12 % of it spread evenly, so that no label is thrown away before
    the meta set has spoken, and both m and q have a gradient.

    Args:
        representation: size of the representation. classes: number of classes.
        hidden_size: width of the hidden layer.
    """

    def __init__(self, representation: int, classes: int, hidden_size: int = 100) -> None:
        super().__init__()
        self.hidden = nn.Linear(representation + classes, hidden_size)
        self.output = nn.Linear(hidden_size, classes + 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.bias[-1] = -2.0

    def forward(self, representation: Tensor, weak: Tensor) -> Tensor:
        """Representation [batch, representation] and weak label [batch, classes] -> corrected [batch, classes]."""
        outputs = self.output(torch.relu(self.hidden(torch.cat([representation, weak], dim=-1))))
        share = torch.sigmoid(outputs[:, -1:])
        return (1 - share) * weak + share * softmax(outputs[:, :-1], dim=-1)


class CorrectAndWeight(nn.Module):
    """Both meta networks as one module, whose parameters are λ; `weighting` None leaves correction alone.

    The weight network sees the example's loss against its corrected label, without a gradient through that loss.

    Args:
        correction: (representation, weak label) -> corrected label. weighting: losses [batch, 1] -> weights [batch].
    """

    def __init__(self, correction: nn.Module, weighting: nn.Module | None = None) -> None:
        super().__init__()
        self.correction, self.weighting = correction, weighting

    def forward(self, log_probabilities: Tensor, representation: Tensor, weak: Tensor) -> tuple[Tensor, Tensor]:
        """The base model's log-probabilities [batch, classes] -> weights [batch] and corrected labels."""
        labels = self.correction(representation, weak)
        losses = -(labels.detach() * log_probabilities).sum(dim=-1, keepdim=True)
        return torch.ones_like(losses[:, 0]) if self.weighting is None else self.weighting(losses), labels
