"""One encoder under two heads."""

from typing import Any

from torch import Tensor, nn


class TwoHeads(nn.Module):
    """A task and an auxiliary objective on one encoder; called with inputs alone it is the task's model.

    Args:
        encoder: inputs -> what both heads take. task, auxiliary: the heads.
    """

    def __init__(self, encoder: nn.Module, task: nn.Module, auxiliary: nn.Module) -> None:
        super().__init__()
        self.encoder, self.task, self.auxiliary = encoder, task, auxiliary

    def forward(self, inputs: Any, head: str = "task") -> Tensor:
        """The outputs of the head "task" or "auxiliary"."""
        return getattr(self, head)(self.encoder(inputs))
