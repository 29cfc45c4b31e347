"""Models with random weights in the shapes that throughput is measured at, and a reweighting loop over each.

Texts: encoders of transformers, random token ids, four classes; no dropout on the attention, since torch has a fused
CPU kernel for attention without it alone. Images: timm's networks and random pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from sama.bilevel.loop import BilevelLoop
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight

Attention = Literal["sdpa", "eager"]
Optimizer = Callable[[Any], torch.optim.Optimizer]
LONGEST = 512
"""Most tokens of a text, of BERT and RoBERTa alike."""


class Text(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, classes]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).logits


@dataclass(frozen=True)
class Shape:
    """A model and what its batch looks like.

    Attributes:
        build: (attention, dropout) -> the model, random weights, in training mode.
        length: tokens of a text, or pixels of an image's side.
        classes: of the labels. vocabulary: of the tokens; 0 for images.
        longest: most tokens of a text; 0: no limit.
    """

    build: Callable[[Attention, float], nn.Module]
    length: int
    classes: int
    vocabulary: int = 0
    longest: int = 0

    def batch(self, examples: int, length: int | None = None, device: str = "cpu") -> LabelledBatch:
        """Random examples."""
        side = length or self.length
        if self.vocabulary:
            inputs = torch.randint(0, self.vocabulary, (examples, side), device=device)
        else:
            inputs = torch.rand(examples, 3, side, side, device=device).to(memory_format=torch.channels_last)
        labels = torch.randint(0, self.classes, (examples,), device=device)
        return LabelledBatch(inputs, labels, torch.arange(examples, device=device))


def text(kind: str, layers: int, width: int, vocabulary: int, length: int) -> Shape:
    """An encoder of this kind with heads of 64 and four times its width inside."""

    def build(attention: Attention, dropout: float) -> nn.Module:
        config = AutoConfig.for_model(
            kind,
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            max_position_embeddings={"bert": LONGEST, "roberta": LONGEST + 2}[kind],
            num_labels=4,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=0.0,
            attn_implementation=attention,
        )
        return Text(AutoModelForSequenceClassification.from_config(config))

    return Shape(build, length, 4, vocabulary, LONGEST)


def image(name: str, length: int, classes: int) -> Shape:
    """A timm network, channels last."""

    def build(attention: Attention, dropout: float) -> nn.Module:
        return timm.create_model(name, num_classes=classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    return Shape(build, length, classes)


SHAPES: Mapping[str, Shape] = {
    "bert_2x128": text("bert", 2, 128, 500, 32),
    "bert_4x256": text("bert", 4, 256, 500, 32),
    "bert_6x384": text("bert", 6, 384, 500, 32),
    "bert_base": text("bert", 12, 768, 30522, 128),
    "roberta_large": text("roberta", 24, 1024, 50265, 128),
    "test_resnet": image("test_resnet", 32, 10),
    "resnet18": image("resnet18", 224, 1000),
    "resnet50": image("resnet50", 224, 1000),
}
"""Name -> shape; those for everyone's CPU first."""


class Repeated:
    """The same batch for ever."""

    def __init__(self, batch: LabelledBatch) -> None:
        self.batch = batch

    def __next__(self) -> LabelledBatch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def reweighting(
    model: nn.Module,
    batch: LabelledBatch,
    optimizer: Optimizer,
    *,
    method: str,
    options: Mapping[str, Any],
    unroll_steps: int,
) -> BilevelLoop:
    """A loop that learns the weights of the one batch by its own loss; meta batch and base batch are the same."""
    network = MetaWeightNetwork(1, 16).to(batch.labels.device)
    return BilevelLoop(
        Reweight(model, network, features=("loss",), teacher=None, normalize=True),
        model,
        network,
        optimizer(model.parameters()),
        torch.optim.Adam(network.parameters(), lr=1e-3),
        Repeated(batch),
        Repeated(batch),
        method=method,
        alpha=0.1,
        unroll_steps=unroll_steps,
        options=options,
    )
