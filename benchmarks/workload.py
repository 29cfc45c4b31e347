"""The workload of the benchmarks of processes, links and peers: an encoder of texts whose examples are weighted.

The encoder has BERT's shape and is written in plain torch, so that a process starts in a second, every peer can take it
apart, and its dropout is none: the same call gives the same value.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight

EXAMPLES = 4096  # in the training and in the meta set


@dataclass(frozen=True)
class Shape:
    """Sizes of the encoder, of its texts, and of the hidden layer of the meta network."""

    width: int = 64
    layers: int = 2
    tokens: int = 32
    vocabulary: int = 1000
    classes: int = 4
    meta_width: int = 32
    heads: int = 4


class Block(nn.Module):
    """Attention and a layer of four times the width, each on normalised inputs and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.joint, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        joint = self.joint(self.first(x)).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0)
        query, key, value = joint.transpose(2, 3)  # each [batch, heads, tokens, width / heads]
        x = x + self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2))
        return x + self.down(gelu(self.up(self.second(x))))


class Encoder(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, classes]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Parameter(0.02 * torch.randn(shape.tokens, shape.width))
        self.blocks = nn.Sequential(*(Block(shape.width, shape.heads) for _ in range(shape.layers)))
        self.last, self.classifier = nn.LayerNorm(shape.width), nn.Linear(shape.width, shape.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.classifier(self.last(self.blocks(self.words(tokens) + self.places)).mean(1))


def texts(shape: Shape, examples: int, seed: int, device: torch.device | str = "cpu") -> LabelledBatch:
    """Random token ids and labels."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(shape.vocabulary, (examples, shape.tokens), generator=generator)
    labels = torch.randint(shape.classes, (examples,), generator=generator)
    return LabelledBatch(tokens.to(device), labels.to(device), torch.arange(examples, device=device))


def modules(shape: Shape, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """The encoder and the meta network (its output layer is not left at zero), the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, network = Encoder(shape), MetaWeightNetwork(1, shape.meta_width)
        nn.init.normal_(network.output.weight, std=0.1)
    return model.to(device, dtype), network.to(device, dtype)


def make_loop(
    shape: Shape,
    examples: int,
    *,
    unroll_steps: int = 1,
    group: dist.ProcessGroup | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BilevelLoop:
    """A bilevel run with AdamW and SAMA on `examples` a process and step."""
    model, network = modules(shape, device=device, dtype=dtype)
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    rank, world_size = (0, 1) if group is None else (group.rank(), group.size())

    def stream(seed: int) -> ShuffledBatches:
        every = texts(shape, EXAMPLES, seed, device)

        def batch(indices: Tensor, _: torch.Generator) -> LabelledBatch:
            indices = indices.to(device)
            return LabelledBatch(every.inputs[indices], every.labels[indices], indices)  # type: ignore[index]

        return ShuffledBatches(EXAMPLES, examples, seed, batch, rank=rank, world_size=world_size)

    return BilevelLoop(
        program,
        model,
        network,
        torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True),
        torch.optim.Adam(network.parameters(), lr=1e-3),
        stream(1),
        stream(2),
        method="sama",
        alpha=0.1,
        unroll_steps=unroll_steps,
        group=group,
    )


def parameter_bytes(module: nn.Module) -> int:
    """Bytes of the module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters())
