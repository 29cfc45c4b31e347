"""The teacher: an exponential moving average of the base model."""

import copy

import torch
from torch import nn


class EMATeacher(nn.Module):
    """`θ_T ← decay · θ_T + (1 − decay) · θ` after each base step; buffers are the student's. Always in eval mode."""

    def __init__(self, student: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"expected an EMA decay in [0, 1), got {decay}")
        super().__init__()
        self.model = copy.deepcopy(student).requires_grad_(False).eval()
        self.decay = decay

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student."""
        torch._foreach_lerp_(list(self.model.parameters()), list(student.parameters()), 1 - self.decay)
        for mine, theirs in zip(self.model.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The averaged model's logits."""
        return self.model(inputs)
