"""Label correction with and without reweighting: the formula by hand, the hypergradient by autodiff, learning."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import one_hot

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient.program import WeightingProgram
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.correct import Correct
from sama.programs.weighted import LabelledBatch
from tests.programs.written_out import check_hypergradient, randomized

MODES = ["R&C", "R&C, normalized", "correction"]


def small(mode: str, *, head: bool):
    """A model of 4 inputs, 3 units and 2 classes with its program, and random θ and λ in float64."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    weighting = None if mode == "correction" else MetaWeightNetwork(1, 4)
    network = CorrectAndWeight(CorrectionNetwork(3 if head else 2, 2, 5), weighting).double()
    program = Correct(model, network, classes=2, head=model[2] if head else None, normalize=mode == "R&C, normalized")
    return program, model, randomized(model, 0), randomized(network, 1)


def labelled(count: int, seed: int) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator)
    return LabelledBatch(torch.randn(count, 4, generator=generator).double(), labels, torch.arange(count))


def log_probabilities(theta, inputs):
    hidden = torch.tanh(inputs @ theta["0.weight"].T + theta["0.bias"])
    logits = hidden @ theta["2.weight"].T + theta["2.bias"]
    return logits - logits.exp().sum(-1, keepdim=True).log(), hidden


def written_out(mode, theta0, lam0, batch, *, head):
    """`(θ, λ) -> mean_i w_i(λ) Σ_c ỹ_ic(λ) (−log p_ic(θ))`, where the networks see the model at θ0, and the weight
    network's loss the labels at λ0."""
    logs0, hidden0 = log_probabilities(theta0, batch.inputs)
    weak = torch.eye(2).double()[batch.labels]
    seen = hidden0 if head else logs0.exp()

    def corrected(lam):
        columns = torch.cat([seen, weak], -1)
        hidden = torch.relu(columns @ lam["correction.hidden.weight"].T + lam["correction.hidden.bias"])
        outputs = hidden @ lam["correction.output.weight"].T + lam["correction.output.bias"]
        own = outputs[:, :2].exp() / outputs[:, :2].exp().sum(-1, keepdim=True)
        share = (1 / (1 + (-outputs[:, 2]).exp()))[:, None]
        return weak * (1 - share) + own * share

    losses0 = -(corrected(lam0) * logs0).sum(-1)

    def weights(lam):
        if mode == "correction":
            return torch.ones(len(weak)).double()
        hidden = torch.relu(losses0[:, None] * lam["weighting.hidden.weight"][:, 0] + lam["weighting.hidden.bias"])
        value = torch.sigmoid(hidden @ lam["weighting.output.weight"][0] + lam["weighting.output.bias"])
        return value / value.mean() if mode == "R&C, normalized" else value

    return lambda theta, lam: (
        weights(lam) * -(corrected(lam) * log_probabilities(theta, batch.inputs)[0]).sum(-1)
    ).mean()


@pytest.mark.parametrize("head", [True, False], ids=["representation", "probabilities"])
@pytest.mark.parametrize("mode", MODES)
def test_the_base_loss_is_the_formula(mode, head):
    program, _, theta, lam = small(mode, head=head)
    batch = labelled(6, 2)
    expected = written_out(mode, theta, lam, batch, head=head)(theta, lam)
    torch.testing.assert_close(program.base_loss(theta, lam, batch), expected)
    features = program.example_losses(theta, batch)[1]
    _, labels = program.weights_and_labels(lam, features)
    torch.testing.assert_close(labels.sum(-1), torch.ones(6).double())
    meta_loss = -log_probabilities(theta, batch.inputs)[0][range(6), batch.labels].mean()
    torch.testing.assert_close(program.meta_loss(theta, lam, batch), meta_loss)


def test_two_examples_by_hand():
    """One logit each against 0; the networks are given by hand: ỹ moves 1/4 of the label, w = ℓ̃."""
    model = nn.Linear(1, 2, bias=False).double()
    quarter = lambda representation, weak: 0.75 * weak + 0.25 * (1 - weak)  # noqa: E731
    correction = type("Quarter", (nn.Module,), {"forward": lambda self, *given: quarter(*given)})()
    program = Correct(model, CorrectAndWeight(correction, nn.Flatten(0)), classes=2, head=None, normalize=False)
    theta = {"weight": torch.tensor([[math.log(3)], [0.0]]).double()}  # p = (3/4, 1/4) at x = 1, (1/2, 1/2) at x = 0
    batch = LabelledBatch(torch.tensor([[1.0], [0.0]]).double(), torch.tensor([0, 1]), torch.arange(2))
    first = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert program.base_loss(theta, {}, batch).item() == pytest.approx((first**2 + math.log(2) ** 2) / 2)


@pytest.mark.parametrize("difference", ["central", "exact"])
@pytest.mark.parametrize("head", [True, False], ids=["representation", "probabilities"])
@pytest.mark.parametrize("mode", MODES)
def test_the_hypergradient_is_that_of_the_formula(mode, head, difference):
    program, model, theta, lam = small(mode, head=head)
    batch, meta_batch = labelled(9, 3), labelled(7, 4)
    loss = written_out(mode, theta, lam, batch, head=head)
    check_hypergradient(program, model, loss, theta, lam, batch, meta_batch, difference)


def test_class_probabilities_serve_as_weak_labels():
    program, _, theta, lam = small("R&C", head=True)
    batch = labelled(6, 2)
    soft = LabelledBatch(batch.inputs, one_hot(batch.labels, 2).double(), batch.indices)
    assert torch.equal(program.base_loss(theta, lam, soft), program.base_loss(theta, lam, batch))
    half = LabelledBatch(batch.inputs, torch.full((6, 2), 0.5).double(), batch.indices)
    assert torch.equal(program.example_losses(theta, half)[1][:, -2:], half.labels)


def test_it_is_a_weighting_program_that_leaves_no_hook():
    program, model, theta, _ = small("R&C", head=True)
    assert isinstance(program, WeightingProgram)
    model.get_parameter("2.weight").data[0] = torch.nan  # not looked at: θ is given
    theta = {name: value.requires_grad_() for name, value in theta.items()}
    losses, features = program.example_losses(theta, labelled(5, 0))
    assert (losses.shape, features.shape) == ((5, 2), (5, 2 + 3 + 2))
    assert losses.requires_grad
    assert not features.requires_grad
    with pytest.raises(RuntimeError):
        program.example_losses(theta, LabelledBatch(torch.ones(5, 3).double(), torch.zeros(5).long(), torch.arange(5)))
    assert not model[2]._forward_pre_hooks


def test_wrong_use_says_what_was_expected():
    model, network = nn.Linear(2, 3), CorrectAndWeight(CorrectionNetwork(2, 2))
    with pytest.raises(ValueError, match="expected head to be a layer of the model, got a Linear of its own"):
        Correct(model, network, classes=3, head=nn.Linear(2, 3), normalize=True)
    batch = LabelledBatch(torch.ones(4, 2), torch.zeros(4).long(), torch.arange(4))
    with pytest.raises(ValueError, match=r"logits \[batch, 2\] of the base model, got \[4, 3\]"):
        program = Correct(model, network, classes=2, head=model, normalize=True)
        program.example_losses(dict(model.named_parameters()), batch)


@pytest.mark.parametrize("weighted", [True, False], ids=["R&C", "correction"])
def test_corrected_labels_become_right(weighted):
    """Two weak labels in five are those of the next class; 100 clean examples show which."""
    torch.manual_seed(0)
    inputs = torch.randn(400, 6)
    right = inputs[:, :3].argmax(-1)
    weak = torch.where(torch.rand(400) < 0.4, (right + 1) % 3, right)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    network = CorrectAndWeight(CorrectionNetwork(16, 3, 32), MetaWeightNetwork(1, 16) if weighted else None)
    program = Correct(model, network, classes=3, head=model[2], normalize=True)
    loop = BilevelLoop(
        program,
        model,
        network,
        torch.optim.SGD(model.parameters(), lr=0.05),
        torch.optim.Adam(network.parameters(), lr=0.001),
        ShuffledBatches(300, 100, 0, lambda i, g: LabelledBatch(inputs[i], weak[i], i)),
        ShuffledBatches(100, 100, 1, lambda i, g: LabelledBatch(inputs[300 + i], right[300 + i], i)),
        method="sama",
        alpha=0.01,
        unroll_steps=1,
    )
    corrected = torch.zeros(300, dtype=torch.int64)
    for _ in range(600):
        result = loop.step()
        _, labels = program.weights_and_labels(dict(network.named_parameters()), result.weightings[0].features)
        corrected[result.batches[0].indices] = labels.argmax(-1)
    before = (weak == right)[:300].float().mean()
    after = (corrected == right[:300]).float().mean()
    assert before < 0.65 < 0.8 < after


def test_the_base_step_of_the_loop_is_that_of_the_formula():
    """The loop puts weights and losses of a class together as the program does."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    network = CorrectAndWeight(CorrectionNetwork(3, 3, 4), MetaWeightNetwork(1, 4))
    program = Correct(model, network, classes=3, head=None, normalize=True)
    batch = LabelledBatch(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), torch.arange(5))
    theta, lam = (dict(module.named_parameters()) for module in (model, network))
    expected = program.base_loss(theta, lam, batch)
    loop = BilevelLoop(
        program,
        model,
        network,
        torch.optim.SGD(model.parameters(), lr=0.1),
        torch.optim.SGD(network.parameters(), lr=0.1),
        ShuffledBatches(1, 1, 0, lambda i, g: batch),
        ShuffledBatches(1, 1, 0, lambda i, g: batch),
        method="sama",
        alpha=0.1,
        unroll_steps=2,
    )
    torch.testing.assert_close(loop.step().base_loss, expected.detach())


class BagOfWords(nn.Module):
    """Takes a mapping, as encoders of text do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.classifier = nn.Embedding(7, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        seen = self.embedding(inputs["input_ids"]) * inputs["attention_mask"][..., None]
        return self.classifier(seen.sum(1) / inputs["attention_mask"].sum(1, keepdim=True))


def test_inputs_may_be_a_mapping():
    model = BagOfWords()
    network = CorrectAndWeight(CorrectionNetwork(3, 2), MetaWeightNetwork(1))
    program = Correct(model, network, classes=2, head=model.classifier, normalize=True)
    texts = {"input_ids": torch.tensor([[1, 2, 0], [3, 4, 5]]), "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    batch = LabelledBatch(texts, torch.tensor([0, 1]), torch.arange(2))
    losses, features = program.example_losses(dict(model.named_parameters()), batch)
    torch.testing.assert_close(losses, -model(texts).log_softmax(-1))
    rows = model.embedding.weight[torch.tensor([[1, 2], [3, 4]])].sum(1)
    rows[1] += model.embedding.weight[5]
    torch.testing.assert_close(features[:, 2:5], (rows / torch.tensor([[2.0], [3.0]])).detach())
