import numpy as np
import pytest

from sama.data.texts.dawid_skene import dawid_skene
from sama.data.texts.votes import majority_vote


def test_one_step_by_hand():
    """Shares (1, 0) and (1/2, 1/2): p = (3/4, 1/4), π_0[0] = (2/3, 1/3), π_0[1] = (0, 1), π_1 = (1, 0) for both."""
    model = dawid_skene(np.array([[0, 0], [1, 0]]), 2, max_steps=1)
    assert np.allclose(model.prior, [0.75, 0.25])
    assert np.allclose(model.confusion[0], [[2 / 3, 1 / 3, 0], [0, 1, 0]])
    assert np.allclose(model.confusion[1], [[1, 0, 0], [1, 0, 0]])
    assert np.allclose(model.posterior, [[1, 0], [0.5, 0.5]], atol=1e-9)
    assert model.log_likelihood == pytest.approx([np.log(0.5)])  # 3/4 2/3 and 3/4 1/3 + 1/4


def test_silence_is_an_answer_by_hand():
    """Texts (0, -), (-, 1) and (0, 1), the last of which begins at (1/2, 1/2), like p.

    π_0[0] = (1, 0, 0), π_0[1] = (1/3, 0, 2/3), π_1 alike: text 0 is 1/2 · 1 · 2/3 and 1/2 · 1/3 · 0.
    """
    model = dawid_skene(np.array([[0, -1], [-1, 1], [0, 1]]), 2, max_steps=1)
    assert np.allclose(model.confusion[0], [[1, 0, 0], [1 / 3, 0, 2 / 3]])
    assert np.allclose(model.confusion[1], [[0, 1 / 3, 2 / 3], [0, 1, 0]])
    assert np.allclose(model.posterior, [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-9)
    assert model.log_likelihood == pytest.approx([np.log(1 / 3)])


def simulated(confusion: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Votes of functions that answer by `confusion` [m, classes, classes + 1]; the last answer is to abstain."""
    draw = np.random.default_rng(seed).random((len(truth), len(confusion), 1))
    answer = (draw > np.cumsum(confusion[:, truth].transpose(1, 0, 2), axis=2)).sum(axis=2)
    return np.where(answer == confusion.shape[2] - 1, -1, answer)


def test_it_finds_the_confusions_of_simulated_annotators_and_beats_their_majority():
    skill = [0.9, 0.7, 0.6, 0.5, 0.5]
    confusion = np.array([[[s if r == k else (1 - s) / 2 for r in range(3)] + [0.0] for k in range(3)] for s in skill])
    truth = np.random.default_rng(0).choice(3, size=4000, p=[0.5, 0.3, 0.2])
    votes = simulated(confusion, truth, seed=1)
    model = dawid_skene(votes, 3)
    assert np.abs(model.confusion - confusion).max() < 0.06
    assert np.abs(model.prior - [0.5, 0.3, 0.2]).max() < 0.03
    majority = np.mean(majority_vote(votes, 3).argmax(axis=1) == truth)
    assert np.mean(model.posterior.argmax(axis=1) == truth) > 0.91 > majority + 0.05


def test_functions_that_vote_for_one_class_alone_are_told_apart_by_their_silence():
    """Two of class 0, three of class 1, the last of which is no better than chance."""
    confusion = np.zeros((5, 2, 3))
    for j, (k, right, wrong) in enumerate([(0, 0.6, 0.1), (0, 0.5, 0.1), (1, 0.6, 0.1), (1, 0.5, 0.1), (1, 0.3, 0.3)]):
        confusion[j, k, k], confusion[j, 1 - k, k] = right, wrong
        confusion[j, :, 2] = 1 - confusion[j].sum(axis=1)
    truth = np.arange(6000) % 2
    votes = simulated(confusion, truth, seed=2)
    model = dawid_skene(votes, 2)
    assert np.abs(model.confusion - confusion).max() < 0.05
    likelihood = np.log(confusion[np.arange(5)[:, None], :, votes.T] + 1e-12).sum(axis=0)  # -1: the last answer
    best = np.mean(likelihood.argmax(axis=1) == truth)
    assert np.mean(model.posterior.argmax(axis=1) == truth) > best - 0.01 > 0.8


def test_the_likelihood_never_falls_and_the_fit_does_not_go_by_order():
    rng = np.random.default_rng(3)
    votes = rng.integers(-1, 4, size=(200, 7))
    model = dawid_skene(votes, 4, max_steps=50, tolerance=0.0)
    gains = np.diff(model.log_likelihood)
    assert len(gains) > 10 and gains.min() > -1e-9 and gains[0] > 1e-3
    order = rng.permutation(200)
    assert np.allclose(dawid_skene(votes[order], 4, max_steps=50, tolerance=0.0).posterior, model.posterior[order])


def test_a_class_and_a_function_without_votes_do_no_harm():
    votes = np.array([[0, -1], [1, -1], [0, -1], [-1, -1]])
    model = dawid_skene(votes, 3)
    assert np.isfinite(model.posterior).all() and np.allclose(model.posterior.sum(axis=1), 1)
    assert model.posterior[:3].argmax(axis=1).tolist() == [0, 1, 0]
