"""The label model of Dawid and Skene (1979, Applied Statistics 28:20-28), fitted by expectation maximization.

Function j answers r on a text of true class k with probability π_j[k, r], independently of the others:

    p(votes of i, class k) = p_k Π_j π_j[k, r_ij],   T_ik = p(class k | votes of i).
    M step: p_k = Σ_i T_ik / n,   π_j[k, r] ∝ Σ_i T_ik [r_ij = r].     E step: T from p and π.

It starts from the shares of the votes. We depart from the paper in one thing: **to abstain is an answer** (r = K), and
not a missing one. A labelling function mostly votes for one class alone. If its silence is left out, π_j[k, r] is 1
for every class k: its votes then say nothing, and T is the prior. The library crowd-kit (1.4) computes that, which is
why it is not used here (`docs/log.md`). Where nobody abstains, this is the paper's model, and the two agree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

FLOOR = 1e-10  # the least probability: an answer never seen with a class speaks against it, but cannot make 0/0


@dataclass(frozen=True)
class DawidSkene:
    """The fitted model."""

    posterior: NDArray[np.float64]  # T [n, classes], rows sum to 1
    prior: NDArray[np.float64]  # p [classes]
    confusion: NDArray[np.float64]  # π [m, classes, classes + 1]; the last answer is to abstain
    log_likelihood: tuple[float, ...]  # mean over the texts, after each E step; it never falls


def dawid_skene(
    votes: NDArray[np.int64], classes: int, *, max_steps: int = 1000, tolerance: float = 1e-7
) -> DawidSkene:
    """Fit votes [n, m], each in 0..classes-1 or -1 to abstain; stops when the mean log likelihood gains < `tolerance`.

    On texts on which all abstain the posterior is what their silence says, near the prior.
    """
    n, m = votes.shape
    answers = np.where(votes < 0, classes, votes) + np.arange(m) * (classes + 1)
    seen = sparse.csr_array(
        (np.ones(n * m), answers.reshape(-1), np.arange(n + 1) * m), shape=(n, m * (classes + 1))
    )  # one hot, [n, functions x answers]
    counts = np.stack([(votes == k).sum(axis=1) for k in range(classes)], axis=1).astype(np.float64)
    counts[counts.sum(axis=1) == 0] = 1.0
    posterior = counts / counts.sum(axis=1, keepdims=True)
    history: list[float] = []
    while True:
        prior = posterior.mean(axis=0)
        confusion = np.asarray(posterior.T @ seen).reshape(classes, m, classes + 1)
        confusion /= np.maximum(confusion.sum(axis=2, keepdims=True), FLOOR)
        joint = np.log(np.maximum(prior, FLOOR)) + seen @ np.log(np.maximum(confusion, FLOOR)).reshape(classes, -1).T
        evidence = np.logaddexp.reduce(joint, axis=1, keepdims=True)
        posterior = np.exp(joint - evidence)
        history.append(float(evidence.mean()))
        if len(history) == max_steps or (len(history) > 1 and history[-1] - history[-2] < tolerance):
            return DawidSkene(posterior, prior, confusion.transpose(1, 0, 2), tuple(history))
