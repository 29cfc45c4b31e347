"""How the mean of per-process hypergradients differs from the hypergradient of all their examples at once.

Several processes average `H_r v_r`, each product from its own shard; one process (or FSDP, where v is global) takes
`mean(H_r) mean(v_r)`, which has the cross terms too. Both with weights that are normalised over a micro-batch, so that
v alone is different. Which of them is nearer to the hypergradient of the whole training and meta set is shown as well.
Digits with 30 % wrong labels, a two-layer network, 64 base and 64 meta examples in all, after 20 and 200 bilevel steps.
`python -m benchmarks.shards` prints a markdown table: medians over 5 seeds x 20 batches; float64.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from sama.adaptation import adapt
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient import MicroBatches, method
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight

EXAMPLES, SHARDS, SEEDS, BATCHES, STEPS = 64, (2, 4, 8), range(5), 20, (20, 200)
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=3e-3),
}


def make_loop(seed: int, optimizer: str, steps: int) -> tuple[BilevelLoop, Reweight, LabelledBatch, LabelledBatch]:
    """A bilevel run on digits, 30 % of whose base labels are wrong; its program and its whole two sets."""
    generator = torch.Generator().manual_seed(seed)
    pixels, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(classes), generator=generator)
    inputs, clean = torch.from_numpy(pixels)[order] / 8 - 1, torch.from_numpy(classes)[order]
    labels = clean.clone()
    wrong = torch.rand(len(labels), generator=generator) < 0.3
    labels[wrong] = torch.randint(0, 10, (int(wrong.sum()),), generator=generator)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).double()
    network = MetaWeightNetwork(1, 32).double()
    program = Reweight(model, network, features=("loss",), teacher=None, normalize=True)
    base_optimizer = OPTIMIZERS[optimizer](model.parameters())
    loop = BilevelLoop(
        program,
        model,
        network,
        base_optimizer,
        torch.optim.Adam(network.parameters(), lr=1e-3),
        ShuffledBatches(1200, EXAMPLES, 2 * seed, lambda i, _: LabelledBatch(inputs[i], labels[i], i)),
        ShuffledBatches(200, EXAMPLES, 2 * seed + 1, lambda i, _: LabelledBatch(inputs[1200 + i], clean[1200 + i], i)),
        method="sama",
        alpha=0.1,
        unroll_steps=1,
    )
    for _ in range(steps):
        loop.step()
    base, meta = torch.arange(1200), torch.arange(1200, 1400)
    return (
        loop,
        program,
        LabelledBatch(inputs[base], labels[base], base),
        LabelledBatch(inputs[meta], clean[meta], meta),
    )


def split(batch: LabelledBatch, shards: int) -> MicroBatches:
    """The batch in equal parts."""
    pieces = zip(batch.inputs.chunk(shards), batch.labels.chunk(shards), batch.indices.chunk(shards), strict=True)
    return MicroBatches(LabelledBatch(*piece) for piece in pieces)


def compare(
    loop: BilevelLoop, program: Reweight, base_set: LabelledBatch, meta_set: LabelledBatch, shards: int
) -> tuple[float, float, float, float]:
    """On the next batches: cosine and norm ratio of mean to joint hypergradient; cosines of both to the sets'."""
    theta, lam = dict(loop.base.named_parameters()), dict(loop.meta.named_parameters())
    batch, meta_batch = split(next(loop.batches), shards), split(next(loop.meta_batches), shards)
    loss = torch.stack([program.base_loss(theta, lam, part) for part in batch]).mean()
    last = dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))

    def hypergradient(of: object, meta: object) -> torch.Tensor:
        found = method("sama")(
            program, theta, lam, of, meta, adapt=lambda x: adapt(loop.base_optimizer, theta, last, x), alpha=0.1
        )
        return torch.cat([value.flatten() for value in found.gradient.values()])

    whole = hypergradient(batch, meta_batch)
    mean = torch.stack([hypergradient(*pair) for pair in zip(batch, meta_batch, strict=True)]).mean(0)
    of_sets = hypergradient(base_set, meta_set)
    cosines = [
        torch.cosine_similarity(*pair, dim=0).item() for pair in ((mean, whole), (mean, of_sets), (whole, of_sets))
    ]
    return cosines[0], (mean.norm() / whole.norm()).item(), cosines[1], cosines[2]


def main() -> None:
    torch.set_num_threads(1)
    print(
        "| optimizer | steps | processes | cosine | norm ratio | mean to the sets' | joint to the sets' |\n"
        + 7 * "|---"
        + "|"
    )
    for optimizer in OPTIMIZERS:
        for steps in STEPS:
            runs = [make_loop(seed, optimizer, steps) for seed in SEEDS]
            for shards in SHARDS:
                found = torch.tensor([compare(*run, shards) for run in runs for _ in range(BATCHES)])
                cosine, ratio, mean, joint = found.median(0).values.tolist()
                print(
                    f"| {optimizer} | {steps} | {shards} | {cosine:.3f} | {ratio:.2f} | {mean:.3f} | {joint:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
