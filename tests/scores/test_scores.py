"""Each score on a case that is known by hand."""

import math

import numpy as np
import pytest

from sama.scores import SCORES, Context


def context(logits=None, *, weights=None, labels=(0, 1, 1), seed=0):
    asked = []

    def train_models(models, steps):
        asked.append((models, steps))
        return np.array(logits)

    return Context(
        sample_ids=np.array([f"x/{k}" for k in range(len(labels))]),
        labels=np.array(labels),
        seed=seed,
        models=2,
        steps=7,
        train_models=train_models,
        meta_weights=lambda: np.array(weights),
    ), asked


def test_el2n_by_hand():
    ln3 = math.log(3)  # softmax of (ln 3, 0) is (3/4, 1/4)
    made, asked = context([[[ln3, 0.0], [ln3, 0.0], [0.0, ln3]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    values = SCORES["el2n"](made)
    even = math.sqrt(0.5)
    quarter, three = math.sqrt(2) / 4, 3 * math.sqrt(2) / 4
    np.testing.assert_allclose(values, [(quarter + even) / 2, (three + even) / 2, (quarter + even) / 2])
    assert asked == [(2, 7)]
    assert values[1] == values.max()  # the example whose label the models deny is the hardest, and is kept


def test_margin_by_hand():
    ln3 = math.log(3)
    made, _ = context([[[ln3, 0.0, -50.0], [0.0, 0.0, -50.0], [-50.0, 50.0, -50.0]]])
    np.testing.assert_allclose(SCORES["margin"](made), [0.5, 1.0, 0.0], atol=1e-12)


def test_margin_is_blind_to_labels_and_el2n_is_not():
    logits = [[[2.0, 0.0], [0.5, 1.0], [0.0, 0.3]]]
    one, other = context(logits, labels=(0, 1, 1))[0], context(logits, labels=(1, 0, 0))[0]
    np.testing.assert_array_equal(SCORES["margin"](one), SCORES["margin"](other))
    assert not np.array_equal(SCORES["el2n"](one), SCORES["el2n"](other))


def test_random_is_uniform_seeded_and_trains_nothing():
    made, asked = context(labels=[0] * 2000)
    values = SCORES["random"](made)
    np.testing.assert_array_equal(values, SCORES["random"](context(labels=[0] * 2000)[0]))
    assert not np.array_equal(values, SCORES["random"](context(labels=[0] * 2000, seed=1)[0]))
    assert values.min() >= 0
    assert values.max() < 1
    assert values.mean() == pytest.approx(0.5, abs=0.03)
    assert not asked


def test_meta_weight_is_the_mean_weight():
    made, asked = context(weights=[0.2, 0.9, 0.4])
    np.testing.assert_array_equal(SCORES["meta_weight"](made), [0.2, 0.9, 0.4])
    assert not asked


def test_el2n_is_the_mean_of_the_norms_not_the_norm_of_the_mean():
    made, _ = context([[[50.0, 0.0, 0.0]], [[0.0, 50.0, 0.0]]], labels=(2,))  # each errs by √2, together by less
    np.testing.assert_allclose(SCORES["el2n"](made), [math.sqrt(2)])
