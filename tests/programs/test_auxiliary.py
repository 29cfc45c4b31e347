"""Weights on a second loss: the formula by hand, the hypergradient by autodiff, learning."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient.program import WeightingProgram
from sama.networks.meta_weight import MetaWeightNetwork
from sama.networks.two_heads import TwoHeads
from sama.programs.auxiliary import Auxiliary, AuxiliaryBatch, mean_cross_entropy
from sama.programs.weighted import LabelledBatch
from tests.programs.written_out import check_hypergradient, randomized


def small(normalize: bool):
    """4 inputs, 3 shared units, 2 classes of the task, 5 of the auxiliary loss; random θ and λ in float64."""
    model = TwoHeads(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 5)).double()
    network = MetaWeightNetwork(1, 6, scale=2.0).double()
    return Auxiliary(model, network, normalize=normalize), model, randomized(model, 0), randomized(network, 1)


def labelled(count: int, classes: int, seed: int) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return LabelledBatch(torch.randn(count, 4, generator=generator).double(), labels, torch.arange(count))


def losses_by_hand(theta, batch: LabelledBatch, head: str):
    hidden = batch.inputs @ theta["encoder.weight"].T + theta["encoder.bias"]
    logits = hidden @ theta[f"{head}.weight"].T + theta[f"{head}.bias"]
    return logits.exp().sum(-1).log() - logits[range(len(logits)), batch.labels]


def written_out(theta0, batch: AuxiliaryBatch, normalize: bool):
    """`(θ, λ) -> mean_i ℓ_i(θ) + mean_j w_j(λ) ℓ'_j(θ)`, where the network sees the losses at θ0."""
    losses0 = losses_by_hand(theta0, batch.auxiliary, "auxiliary")

    def weights(lam):
        hidden = torch.relu(losses0[:, None] * lam["hidden.weight"][:, 0] + lam["hidden.bias"])
        value = 2 / (1 + (-hidden @ lam["output.weight"][0] - lam["output.bias"]).exp())
        return value / value.mean() if normalize else value

    return lambda theta, lam: (
        losses_by_hand(theta, batch.task, "task").mean()
        + (weights(lam) * losses_by_hand(theta, batch.auxiliary, "auxiliary")).mean()
    )


@pytest.mark.parametrize("normalize", [False, True])
def test_the_base_loss_is_the_formula(normalize):
    program, _, theta, lam = small(normalize)
    batch = AuxiliaryBatch(labelled(6, 2, 2), labelled(6, 5, 3))
    torch.testing.assert_close(program.base_loss(theta, lam, batch), written_out(theta, batch, normalize)(theta, lam))
    probabilities = torch.nn.functional.one_hot(batch.task.labels, 2).double()  # as weak labels are given
    soft = AuxiliaryBatch(replace(batch.task, labels=probabilities), batch.auxiliary)
    torch.testing.assert_close(program.base_loss(theta, lam, soft), program.base_loss(theta, lam, batch))
    of_task = losses_by_hand(theta, batch.task, "task")
    torch.testing.assert_close(program.meta_loss(theta, lam, batch.task), of_task.mean())
    theta = {name: value.requires_grad_() for name, value in theta.items()}
    losses, features = program.example_losses(theta, batch)
    torch.testing.assert_close(losses[:, 0], of_task)
    torch.testing.assert_close(features[:, 0], losses[:, 1])
    assert losses.requires_grad
    assert not features.requires_grad


@pytest.mark.parametrize("difference", ["central", "exact"])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_hypergradient_is_that_of_the_formula(normalize, difference):
    program, model, theta, lam = small(normalize)
    batch, meta_batch = AuxiliaryBatch(labelled(9, 2, 3), labelled(9, 5, 4)), labelled(7, 2, 5)
    assert isinstance(program, WeightingProgram)
    loss = written_out(theta, batch, normalize)
    check_hypergradient(program, model, loss, theta, lam, batch, meta_batch, difference)


def test_the_mean_is_over_the_labelled_positions():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([[-100, 2, -100, 4], [0, -100, -100, -100], [-100] * 4])
    logs = log_softmax(logits, -1)
    expected = torch.stack([-(logs[0, 1, 2] + logs[0, 3, 4]) / 2, -logs[1, 0, 0], torch.tensor(0.0).double()])
    torch.testing.assert_close(mean_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(mean_cross_entropy(logits[:, 0], labels[:, 1])[0], -logs[0, 0, 2])


def test_batches_of_unequal_size_are_refused():
    program, _, theta, _ = small(False)
    with pytest.raises(ValueError, match="expected 6 auxiliary examples, as many as task's, got 5"):
        program.example_losses(theta, AuxiliaryBatch(labelled(6, 2, 2), labelled(5, 5, 3)))


def test_useless_auxiliary_examples_lose_their_weight():
    """Task: 3 classes from 24 labelled examples; auxiliary: the same question, half of the answers drawn at random."""
    torch.manual_seed(0)
    teacher = torch.randn(20, 3)
    inputs = torch.randn(384, 20)
    labels = (inputs @ teacher).argmax(-1)
    auxiliary = labels.clone()
    auxiliary[84:234] = torch.randint(0, 3, (150,))  # useless: the first 150 of the auxiliary examples
    model = TwoHeads(nn.Sequential(nn.Linear(20, 8), nn.Tanh()), nn.Linear(8, 3), nn.Linear(8, 3))
    network = MetaWeightNetwork(1, 16, scale=2.0)
    program = Auxiliary(model, network, normalize=False)

    def batch(indices: torch.Tensor, generator: torch.Generator) -> AuxiliaryBatch:
        task, other = indices % 24, 84 + indices
        return AuxiliaryBatch(
            LabelledBatch(inputs[task], labels[task], task), LabelledBatch(inputs[other], auxiliary[other], indices)
        )

    loop = BilevelLoop(
        program,
        model,
        network,
        torch.optim.SGD(model.parameters(), lr=0.3),
        torch.optim.Adam(network.parameters(), lr=0.01),
        ShuffledBatches(300, 100, 0, batch),
        ShuffledBatches(60, 60, 1, lambda i, g: LabelledBatch(inputs[24 + i], labels[24 + i], i)),
        method="sama",
        alpha=0.01,
        unroll_steps=1,
    )
    weights = torch.zeros(300)
    for _ in range(300):
        result = loop.step()
        weights[result.batches[0].auxiliary.indices] = result.weightings[0].weights[:, 1]
    useless, useful = weights[:150].mean(), weights[150:].mean()
    assert useless < 1.4 < 1.8 < useful
