"""One process that computes the shards of several, and averages: what a step of several processes is defined to be."""

from collections.abc import Mapping, Sequence

import torch

from sama.adaptation import adapt
from sama.bilevel.loop import BilevelLoop, StepResult
from sama.hypergradient import MicroBatches


def step(shards: Sequence[BilevelLoop]) -> list[StepResult]:
    """A step of `shards[0]`, from the micro-batches of all: a gradient and a hypergradient a shard, their plain means.

    Args:
        shards: a loop a process, made alike but for its streams; of the others nothing but these is used.

    Returns:
        What each process would have seen.
    """
    loop = shards[0]
    theta, lam = dict(loop.base.named_parameters()), dict(loop.meta.named_parameters())
    prepare = getattr(loop.program, "prepare", lambda batch: batch)
    number = loop.step_count + 1
    batches = [MicroBatches(prepare(next(s.batches)) for _ in range(loop.accumulate)) for s in shards]
    point = {n: p.detach().clone() for n, p in theta.items()} if loop.method.before_update else theta
    buffers = [b.clone() for b in loop.base.buffers()]
    gradients, seen, kept = [], [], []
    for rank, batch in enumerate(batches):
        losses, weightings = zip(*(loop._base_loss(lam, part) for part in batch), strict=True)
        loss = torch.stack(losses).mean()
        gradients.append(torch.autograd.grad(loss, list(theta.values())))
        seen.append((loss.detach(), tuple(w for w in weightings if w is not None)))
        if rank == 0:
            kept = [b.clone() for b in loop.base.buffers()]
        for b, value in zip(loop.base.buffers(), buffers, strict=True):
            b.copy_(value)
    for b, value in zip(loop.base.buffers(), kept, strict=True):
        b.copy_(value)
    mean = {n: torch.stack(g).mean(0) for n, g in zip(theta, zip(*gradients, strict=True), strict=True)}
    for n, p in theta.items():
        p.grad = torch.empty_like(p).copy_(mean[n])  # of the same strides, as a fused optimizer needs it
    loop.base_optimizer.step()
    meta_losses = [None] * len(shards)
    if number % loop.unroll_steps == 0:
        meta_losses = _meta_step(shards, batches, point, mean)
    for scheduler in loop.schedulers:
        scheduler.step()  # type: ignore[attr-defined]
    if loop.after_base_step is not None:
        loop.after_base_step()
    loop.step_count = number
    return [
        StepResult(number, tuple(batch), loss, meta_loss, weightings)
        for batch, (loss, weightings), meta_loss in zip(batches, seen, meta_losses, strict=True)
    ]


def _meta_step(
    shards: Sequence[BilevelLoop],
    batches: Sequence[MicroBatches],
    point: Mapping[str, torch.Tensor],
    mean: dict[str, torch.Tensor],
) -> list[torch.Tensor]:
    loop = shards[0]
    theta, lam = dict(loop.base.named_parameters()), dict(loop.meta.named_parameters())
    results = [
        loop.method(
            loop.program,
            point,
            lam,
            batch,
            MicroBatches(next(shard.meta_batches) for _ in range(loop.meta_accumulate)),
            adapt=lambda x: adapt(loop.base_optimizer, theta, mean, x),
            alpha=loop.alpha,
        )
        for shard, batch in zip(shards, batches, strict=True)
    ]
    for n, p in lam.items():
        p.grad = torch.stack([result.gradient[n] for result in results]).mean(0)
    loop.meta_optimizer.step()
    moves = [result.displacement for result in results if result.displacement is not None]
    if moves:
        with torch.no_grad():
            for n, p in theta.items():
                p.add_(torch.stack([move[n] for move in moves]).mean(0))
    return [result.meta_loss for result in results]
