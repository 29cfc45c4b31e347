"""A general program that the tests of several processes and of shards share."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sama.bilevel.sharded import whole


class Decay:
    """Per-parameter weight decay, which reads the parameters itself: |λ| = |θ|, `/` for `.` in λ's names."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def buffers(self):
        return list(self.model.buffers())

    def meta_loss(self, base, meta, batch):
        return cross_entropy(torch.func.functional_call(self.model, dict(base), (batch.inputs,)), batch.labels)

    def base_loss(self, base, meta, batch):
        decay = sum((meta[name.replace(".", "/")].exp() * whole(p).square()).sum() for name, p in base.items())
        return self.meta_loss(base, meta, batch) + decay
