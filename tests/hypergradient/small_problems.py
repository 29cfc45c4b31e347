"""Small problems for SAMA, a diagonal adaptation for them, and the call."""

import torch

from sama.hypergradient import method
from tests.oracles import WeightDecay, WeightedLogistic

PROBLEMS = {
    "weighted": lambda seed: WeightedLogistic(seed),
    "weighted, direct term": lambda seed: WeightedLogistic(seed, features=3, classes=4, examples=9, direct=0.7),
    "weight decay": lambda seed: WeightDecay(seed),
}


def diagonal_of(problem, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return {n: 0.1 + torch.rand(p.shape, generator=generator, dtype=p.dtype) for n, p in problem.theta.items()}


def hypergradient(name, problem, alpha, diagonal):
    return method(name)(
        problem,
        problem.theta,
        problem.lam,
        problem.batch,
        problem.meta_batch,
        adapt=lambda x: {n: diagonal[n] * x[n] for n in x},
        alpha=alpha,
    )
