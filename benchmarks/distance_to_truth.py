"""How far SAMA and SAMA-NA stand from the true hypergradient, where it is known: cosine and norm ratio.

SAMA takes the base Jacobian as the identity. Here the base problem is solved exactly, so that nothing but that
approximation (and the choice of D) is seen. SGD makes D a multiple of the identity: SAMA is then SAMA-NA times
that factor, the learning rate. Adam's D is what 300 steps of rate 0.01 on random halves of the examples leave.
`python -m benchmarks.distance_to_truth` prints a markdown table: over seeds 0 to 9 the mean cosine, in brackets the
lowest, and the mean norm ratio; float64; no direct gradient.
"""

import torch

from sama.adaptation import adapt
from sama.hypergradient import method
from tests.oracles import LinearModel, agreement

PROBLEMS = {
    "biased regression": ("squares", "bias"),
    "decay, ridge regression": ("squares", "decay"),
    "example weights, ridge regression": ("squares", "weights"),
    "example weights, logistic regression": ("logistic", "weights"),
    "weight network, logistic regression": ("logistic", "network"),
}
SIZES = [(5, 20), (20, 80), (100, 400), (100, 120)]
NOISE = [0.1, 1.0]
SEEDS = range(10)


def adapted_by_adam(problem: LinearModel, theta: dict[str, torch.Tensor], seed: int):
    """x -> Dᵀx of Adam, near θ*, with a state that has seen noisy gradients."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {n: p.clone().requires_grad_() for n, p in theta.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.01)
    whole, original = problem.batch, problem.lam
    for _ in range(300):
        half = torch.randperm(len(whole[0]), generator=generator)[: len(whole[0]) // 2]
        problem.batch = tuple(part[half] for part in whole)
        lam = {"values": original["values"][half]} if problem.role == "weights" else original
        loss = problem.base_loss(parameters, lam, problem.batch)
        for p, g in zip(parameters.values(), torch.autograd.grad(loss, list(parameters.values())), strict=True):
            p.grad = g
        optimizer.step()
    problem.batch = whole
    gradients = {n: p.grad for n, p in parameters.items() if p.grad is not None}
    return lambda x: adapt(optimizer, parameters, gradients, x)


def compare(problem: LinearModel, seed: int) -> list[tuple[float, float]]:
    """(cosine, norm ratio) of SAMA-NA, of SAMA with Adam, and of three terms of the Neumann series."""
    theta, truth = problem.solve(problem.lam), problem.true_hypergradient()
    largest = torch.linalg.eigvalsh(problem.hessian(theta, problem.lam))[-1].item()
    context = {"adapt": adapted_by_adam(problem, theta, seed)}
    return [
        agreement(
            method(name, **knobs)(problem, theta, problem.lam, problem.batch, problem.meta_batch, **context).gradient,
            truth,
        )
        for name, knobs in [
            ("sama_na", {"alpha": 1e-3}),
            ("sama", {"alpha": 1e-3}),
            ("neumann", {"iterations": 2, "learning_rate": 1 / largest}),
        ]
    ]


def main() -> None:
    torch.set_num_threads(1)
    print("| problem | parameters | examples | noise | SAMA-NA | SAMA, Adam | Neumann, 3 terms |\n" + 7 * "|---" + "|")
    for label, (loss, role) in PROBLEMS.items():
        for features, examples in SIZES:
            for noise in NOISE:
                knobs = {"features": features, "examples": examples, "noise": noise, "direct": 0.0}
                found = torch.tensor([compare(LinearModel(loss, role, seed, **knobs), seed) for seed in SEEDS])
                means, lowest = found.mean(0).tolist(), found.amin(0)[:, 0].tolist()
                pairs = zip(means, lowest, strict=True)
                cells = " | ".join(f"{cosine:.3f} ({least:.2f}), {ratio:.2g}×" for (cosine, ratio), least in pairs)
                print(f"| {label} | {features} | {examples} | {noise} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
