"""How well a hypergradient survives bf16 and fp16: cosine and norm ratio to the float32 one, on trained weights.

Text: a BERT of 4 layers, 128 wide, AdamW, on documents of words from four topics with weak labels (the vote of five
noisy keyword rules, 22-32 % wrong) and 64 clean meta documents. Images: timm's test_resnet (BatchNorm) on the digits of
scikit-learn with 30 % wrong labels, the recipe of config/config.yaml. Both are trained for 200 steps by the bilevel
loop in float32; then one base step, and the hypergradients after it in each way, for two pairs of batches.

Two kinds of λ: the meta network of the training, whose gradients over a batch point in few directions, so that their
cosine is near 1 or -1 whatever the noise; and one free weight an example, which shows every example's error.
`python -m benchmarks.precision` prints a markdown table over seeds 0-4; about three minutes on one core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from sama.adaptation import adapt, remember
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.bilevel.mixed import mixed
from sama.bilevel.precision import Precision
from sama.hypergradient import method
from sama.networks.classifiers import build_classifier
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from tests.oracles import agreement

SEEDS = range(5)


@dataclass
class Trained:
    """A program, its parameters after a base step, that step's adaptation, and batches of both levels."""

    program: Reweight
    theta: Mapping[str, Tensor]
    lam: Mapping[str, Tensor]
    batches: list[tuple[LabelledBatch, LabelledBatch]]
    adapt: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]

    def hypergradient(self, program: Any, pair: int = 0, *, free: bool = False, **knobs: Any) -> dict[str, Tensor]:
        """By SAMA, of the meta network or with `free` of one weight an example; unscaled."""
        torch.manual_seed(0)  # the same dropout masks for all
        batch, meta_batch = self.batches[pair]
        lam = {"weights": torch.ones(len(batch.labels))} if free else self.lam
        sides = (Free(program) if free else program, self.theta, lam, batch, meta_batch)
        found = method("sama", **knobs)(*sides, adapt=self.adapt).gradient
        scale = program.precision.meta_scaler.get_scale() if hasattr(program, "precision") else 1.0
        return {name: value / scale for name, value in found.items()}


class Bert(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, 4]."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
        config = BertConfig(vocab_size=400, num_labels=4, max_position_embeddings=32, **sizes)
        config._attn_implementation = "eager"  # forward mode knows no fused kernel
        self.bert = BertForSequenceClassification(config)

    def forward(self, tokens):
        return self.bert(input_ids=tokens).logits


def documents(count: int, seed: int, tokens: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [count, tokens], topics [count], weak labels [count]: five rules, each knows some words of a topic."""
    draw = torch.Generator().manual_seed(seed)
    topics = torch.randint(0, 4, (count,), generator=draw)
    own = torch.rand(count, tokens, generator=draw) < 0.25
    common = torch.randint(0, 200, (count, tokens), generator=draw)
    words = torch.where(own, 200 + 50 * topics[:, None] + torch.randint(0, 50, (count, tokens), generator=draw), common)
    votes = torch.zeros(count, 4)
    for _ in range(5):
        known = torch.rand(400, generator=draw) < 0.12
        meaning = torch.where(
            torch.arange(400) < 200, torch.randint(0, 4, (400,), generator=draw), (torch.arange(400) - 200) // 50
        )
        hits = known[words].float()
        votes.scatter_add_(1, meaning[words], hits)
    votes += 0.5 * torch.rand(votes.shape, generator=draw)  # ties, and documents that no rule knows
    return words, topics, votes.argmax(1)


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [1797, 1, 8, 8], labels, labels of which 30 % are wrong."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=draw)
    pixels = torch.tensor(values, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    clean = torch.tensor(labels)[order]
    wrong = torch.rand(len(clean), generator=draw) < 0.3
    shift = torch.randint(1, 10, clean.shape, generator=draw)
    return (pixels - pixels.mean()) / pixels.std(), clean, torch.where(wrong, (clean + shift) % 10, clean)


def train(model: nn.Module, data: tuple[Tensor, Tensor, Tensor], *, seed: int, steps: int, **recipe: Any) -> Trained:
    """Meta-train in float32; the first examples are the clean meta set."""
    inputs, clean, weak = data
    held = recipe["meta_examples"]
    teacher = EMATeacher(model, 0.9) if "uncertainty" in recipe["features"] else None
    network = MetaWeightNetwork(len(recipe["features"]))
    program = Reweight(model, network, features=recipe["features"], teacher=teacher, normalize=True)
    optimizer = recipe["optimizer"](model.parameters())

    def stream(offset: int, labels: Tensor, count: int, size: int) -> ShuffledBatches:
        make = lambda k, _: LabelledBatch(inputs[offset + k], labels[offset + k], k)  # noqa: E731
        return ShuffledBatches(count, size, seed, make)

    batches = stream(held, weak, len(inputs) - held, recipe["batch_size"])
    meta_batches = stream(0, clean, held, recipe["meta_batch_size"])
    loop = BilevelLoop(
        program,
        model,
        network,
        optimizer,
        torch.optim.Adam(network.parameters(), lr=recipe["meta_rate"]),
        batches,
        meta_batches,
        method="sama",
        alpha=recipe["alpha"],
        unroll_steps=recipe["unroll_steps"],
        schedulers=[torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, round(steps / 0.75))],
        after_base_step=None if teacher is None else lambda: teacher.update(model),
    )
    for _ in range(steps):
        loop.step()
    theta, lam = dict(model.named_parameters()), dict(network.named_parameters())
    pairs = [(program.prepare(next(batches)), next(meta_batches)) for _ in range(2)]
    batch, _ = pairs[0]
    values = torch.autograd.grad(program.base_loss(theta, lam, batch), list(theta.values()))
    gradients = dict(zip(theta, values, strict=True))
    before = remember(optimizer)
    for name, p in theta.items():
        p.grad = gradients[name]
    optimizer.step()
    return Trained(program, theta, lam, pairs, lambda x: adapt(optimizer, theta, gradients, x, before=before))


def text(seed: int, steps: int = 200) -> Trained:
    torch.manual_seed(seed)
    return train(
        Bert(),
        documents(1064, seed),
        seed=seed,
        steps=steps,
        meta_examples=64,
        features=("loss",),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=5e-4, betas=(0.9, 0.98), eps=1e-6),
        batch_size=16,
        meta_batch_size=16,
        meta_rate=1e-3,
        alpha=0.3,
        unroll_steps=10,
    )


def images(seed: int, steps: int = 200) -> Trained:
    torch.manual_seed(seed)
    return train(
        build_classifier("test_resnet", classes=10, channels=1, image_size=8, small_stem=True),
        digits(seed),
        seed=seed,
        steps=steps,
        meta_examples=100,
        features=("loss", "uncertainty"),
        optimizer=lambda parameters: torch.optim.SGD(
            parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        batch_size=64,
        meta_batch_size=100,
        meta_rate=3e-3,
        alpha=0.1,
        unroll_steps=2,
    )


class Everything:
    """A weighting program whose every forward of the base model runs under autocast: what not to do.

    `statistics`: the losses that a difference is taken of use the running statistics of BatchNorm.
    """

    def __init__(self, program: Reweight, precision: Precision, *, meta: bool = True, statistics: bool = False) -> None:
        self.inner, self.precision, self.meta, self.statistics = program, precision, meta, statistics
        self.weights, self.buffers = program.weights, program.buffers

    def example_losses(self, base, batch):
        if self.statistics:
            for module in self.inner.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        try:
            with self.precision.autocast():
                return self.inner.example_losses(base, batch)
        finally:
            self.inner.model.train()

    def base_loss(self, base, meta, batch):
        losses, features = self.example_losses(base, batch)
        return (self.weights(meta, features) * losses).mean()

    def meta_loss(self, base, meta, batch):
        with self.precision.autocast() if self.meta else self.precision.full():
            return self.inner.meta_loss(base, meta, batch)


class General:
    """A weighting program of which a method sees the two losses alone; the features move with θ then."""

    def __init__(self, program: Any) -> None:
        self.base_loss, self.meta_loss, self.buffers = program.base_loss, program.meta_loss, program.buffers


class Free:
    """λ is one weight an example."""

    def __init__(self, program: Any) -> None:
        self.example_losses, self.meta_loss, self.buffers = program.example_losses, program.meta_loss, program.buffers

    def base_loss(self, base, meta, batch):
        return (meta["weights"] * self.example_losses(base, batch)[0]).mean()

    def weights(self, meta, features):
        return meta["weights"]


def ways(program: Reweight) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """Label -> program in low precision, the one in float32 to compare it with, knobs of the method."""
    full, bf16, fp16 = (Precision(name, "cpu") for name in ("float32", "bf16", "fp16"))
    everything, chosen = Everything(program, bf16), mixed(program, bf16)
    found = {
        "everything bf16": (everything, program, {}),
        "everything bf16, forward mode": (everything, program, {"difference": "exact"}),
        "everything bf16, general program": (General(everything), General(program), {}),
        "differences bf16, meta loss float32": (Everything(program, bf16, meta=False), program, {}),
        "differences float32, meta loss bf16": (chosen, program, {}),
        "the same, one-sided": (chosen, program, {"difference": "one_sided"}),
        "the same, general program": (General(chosen), General(program), {}),
        "differences float32, meta loss fp16": (mixed(program, fp16), program, {}),
    }
    if any(isinstance(module, nn.BatchNorm2d) for module in program.model.modules()):
        found |= {
            "everything bf16, running statistics in differences": (
                Everything(program, bf16, statistics=True),
                Everything(program, full, statistics=True),
                {},
            ),
            "float32, running against batch statistics": (Everything(program, full, statistics=True), program, {}),
        }
    return found


def measure(trained: Trained, alpha: float) -> dict[str, list[tuple[float, ...]]]:
    """Label -> for each pair of batches: cosine and norm ratio for the network, and for free weights."""
    found: dict[str, list[tuple[float, ...]]] = {}
    references: dict[Any, dict[str, Tensor]] = {}
    for label, (low, full, knobs) in ways(trained.program).items():
        for pair in range(1 if "fp16" in label else len(trained.batches)):  # convolutions in fp16 take seconds on a CPU
            numbers: tuple[float, ...] = ()
            for free in (False, True) if hasattr(low, "weights") else (False,):
                key = (type(full), pair, free, str(knobs))
                if key not in references:
                    references[key] = trained.hypergradient(full, pair, free=free, alpha=alpha, **knobs)
                value = trained.hypergradient(low, pair, free=free, alpha=alpha, **knobs)
                numbers += agreement(value, references[key])
            found.setdefault(label, []).append(numbers)
    return found


def main() -> None:
    torch.set_num_threads(1)
    print("Cosine, smallest and mean; norm ratio, smallest to largest.\n")
    print(
        "| model | α | forwards | cosine | norm ratio | cosine, free weights | norm ratio |\n" + 7 * "|---" + "|",
        flush=True,
    )
    for model, make, alphas in (("text", text, (0.3, 0.01)), ("BatchNorm", images, (0.1, 0.01))):
        runs = [make(seed) for seed in SEEDS]
        for alpha in alphas:
            found: dict[str, list[tuple[float, ...]]] = {}
            for trained in runs:
                for label, numbers in measure(trained, alpha).items():
                    found.setdefault(label, []).extend(numbers)
            for label, numbers in found.items():
                columns = torch.tensor(numbers).T
                cells = [
                    f"{cosine.min():.4f}, {cosine.mean():.4f} | {ratio.min():.2f}–{ratio.max():.2f}"
                    for cosine, ratio in zip(columns[::2], columns[1::2], strict=True)
                ]
                print(f"| {model} | {alpha} | {label} | {' | '.join([*cells, '– | –'][:2])} |", flush=True)


if __name__ == "__main__":
    main()
