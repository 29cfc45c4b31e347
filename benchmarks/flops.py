"""Floating-point operations of one base step and one meta step, method by method, in forwards of the base batch.

A weighting program with a BERT-shaped base model (4 layers, 256 wide, eager attention for all methods), counted
by torch's FlopCounterMode: `python -m benchmarks.flops` prints a markdown table.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from sama.bilevel.loop import BilevelLoop
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sama": ("sama", {}),
    "sama, one-sided": ("sama", {"difference": "one_sided"}),
    "sama, forward mode": ("sama", {"difference": "exact"}),
    "sama_na": ("sama_na", {}),
    "darts": ("darts", {}),
    "darts, one-sided": ("darts", {"difference": "one_sided"}),
    "darts, forward mode": ("darts", {"difference": "exact"}),
    "neumann, 3 iterations": ("neumann", {"iterations": 3}),
    "cg, 3 iterations": ("cg", {"iterations": 3}),
    "itd, 1 step": ("itd", {"inner_steps": 1}),
    "itd, 3 steps": ("itd", {"inner_steps": 3}),
}


class Bert(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=500,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            num_labels=4,
            attn_implementation="eager",
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, tokens):
        return self.bert(input_ids=tokens).logits


class Repeated:
    """The same batch for ever."""

    def __init__(self, batch: LabelledBatch) -> None:
        self.batch = batch

    def __next__(self) -> LabelledBatch:
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None: ...


def make_loop(
    method: str,
    options: dict[str, Any],
    *,
    unroll_steps: int,
    examples: int = 2,
    tokens: int = 16,
    optimizer: Callable[[Any], torch.optim.Optimizer] = lambda parameters: torch.optim.AdamW(parameters, lr=1e-4),
    device: str = "cpu",
):
    torch.manual_seed(0)
    model, network = Bert().to(device), MetaWeightNetwork(1, 16).to(device)
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    batch = LabelledBatch(
        torch.randint(0, 500, (examples, tokens), device=device),
        torch.randint(0, 4, (examples,), device=device),
        torch.arange(examples, device=device),
    )
    return BilevelLoop(
        program,
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


def count(function) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def measure() -> dict[str, float]:
    """Operations in forwards of the base batch: `plain step`, and base step plus meta step of every method."""
    loop = make_loop("sama", {}, unroll_steps=2)
    with torch.no_grad():
        forward = count(lambda: loop.base(loop.batches.batch.inputs))
    found = {"plain step": count(loop.step) / forward}
    for label, (method, options) in METHODS.items():
        found[label] = count(make_loop(method, options, unroll_steps=1).step) / forward
    return found


def main() -> None:
    print("| method, unroll 1 | forwards F of the base batch |\n|---|---|")
    for label, value in measure().items():
        print(f"| {label} | {value:.2f} F |")
    print("| exact, n base parameters | 11 F + 6n F by the same arithmetic; not run at this size |")


if __name__ == "__main__":
    main()
