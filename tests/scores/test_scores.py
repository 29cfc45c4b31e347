"""Each score on a case that is known by hand."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from sama.config import ScoresConfig
from sama.scores import SCORES
from tests.scores.contexts import context

LN3 = math.log(3)  # softmax of (ln 3, 0) is (3/4, 1/4)
EVEN, QUARTER, THREE = math.sqrt(0.5), math.sqrt(2) / 4, 3 * math.sqrt(2) / 4
TWO_MODELS = [[[LN3, 0.0], [LN3, 0.0], [0.0, LN3]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]]
OWN_FEATURES = {"encoder": None, "encoder_weights": None}
BY_HAND = {  # method: (what the context says, knobs, scores)
    "el2n": (
        {"labels": [0, 1, 1], "logits": TWO_MODELS},
        {"models": 2, "steps": 7},
        [(QUARTER + EVEN) / 2, (THREE + EVEN) / 2, (QUARTER + EVEN) / 2],
    ),
    "el2n_reversed": (
        {"labels": [0, 1, 1], "logits": TWO_MODELS},
        {"models": 2, "steps": 7},
        [-(QUARTER + EVEN) / 2, -(THREE + EVEN) / 2, -(QUARTER + EVEN) / 2],
    ),
    "grand": ({"labels": [0, 1], "norms": [[1.0, 4.0], [3.0, 0.0]]}, {"models": 2, "steps": 7}, [2.0, 2.0]),
    "margin": (
        {
            "labels": [0, 1, 1],
            "logits": [
                [[LN3, 0.0, -50.0], [0.0, 0.0, -50.0], [-50.0, 50.0, -50.0]],
                [[0.0, 0.0, -50.0], [0.0, 0.0, -50.0], [-50.0, 50.0, -50.0]],
            ],
        },
        {"models": 2, "steps": 7},
        [(0.5 + 1.0) / 2, 1.0, 0.0],
    ),
    "entropy": (
        {"labels": [0, 1], "logits": [[[LN3, 0.0], [90.0, 0.0]], [[0.0, 0.0], [90.0, 0.0]]]},
        {"models": 2, "steps": 7},
        [(math.log(4) - 0.75 * LN3 + math.log(2)) / 2, 0.0],
    ),
    "forgetting": (  # columns: learnt for good, forgotten twice, forgotten once and relearnt, never learnt, last visit
        {
            "labels": [0] * 5,
            "margin": ([[-1, 1, 1, -1, -1], [1, -1, -1, -1, -1], [1, 1, 1, 0, -1], [1, -1, 1, -1, 1]]),
        },
        {"epochs": None},
        [0.0, 2.0, 1.0, 4.0, 0.0],
    ),
    "aum": (
        {"labels": [0] * 2, "margin": ([[1, -4], [2, -2], [6, 0]])},
        {"epochs": None},
        [3.0, -2.0],
    ),
    "dyn_unc": (  # sample deviation of a pair is |difference| / √2
        {"labels": [0] * 2, "probability": ([[0.0, 0.5], [0.4, 0.5], [0.2, 0.5]])},
        {"window": 2, "epochs": None},
        [(0.4 + 0.2) / 2 / math.sqrt(2), 0.0],
    ),
    "dual": (
        {"labels": [0] * 2, "probability": ([[0.0, 0.9], [0.4, 0.5], [0.2, 0.5]])},
        {"window": 2, "epochs": None},
        [(0.8 * 0.4 + 0.7 * 0.2) / 2 / math.sqrt(2), 0.3 * 0.4 / 2 / math.sqrt(2)],
    ),
    "tdds": (  # pairs (a, b) of divergences: norm of (a, b) − mean is |a − b| / √2; weights 0.9 · 0.1, 0.9
        {"labels": [0] * 2, "divergence": ([[np.nan] * 2, [1, 1], [3, 1], [4, 1]])},
        {"window": 3, "epochs": None, "decay": 0.9},
        [(0.09 * 2 + 0.9 * 1) / math.sqrt(2), 0.0],
    ),
    "prototype": (  # centroids: the ray of the first three, and the axis that mirrors the last two
        {"labels": [0] * 5, "features": [[3, 0], [1, 0], [5, 0], [0.6, 2.0], [-0.6, 2.0]]},
        {**OWN_FEATURES, "clusters": 2},
        [0.0, 0.0, 0.0, *[1 - 2.0 / math.hypot(0.6, 2.0)] * 2],
    ),
    "meta_weight": ({"labels": [0] * 3, "weights": [0.2, 0.9, 0.4]}, {}, [0.2, 0.9, 0.4]),
    "meta_weight_loss": ({"labels": [0] * 3, "weights": [0.2, 0.9, 0.4]}, {}, [0.2, 0.9, 0.4]),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_by_hand(method):
    says, knobs, expected = BY_HAND[method]
    made, asked = context(**says)
    np.testing.assert_allclose(SCORES[method].compute(made, **knobs), expected, rtol=1e-6, atol=1e-7)
    assert len(asked) == 1  # nothing is trained or read twice
    if "steps" in knobs:
        assert asked[0][1:] == (knobs["models"], knobs["steps"])


def test_every_score_but_random_is_known_by_hand():
    assert set(BY_HAND) == set(SCORES) - {"random"}


def test_an_example_with_a_denied_label_is_the_hardest_and_hard_ends_are_true():
    """The models deny the label of the third example: it stands at the end that the registry names."""
    logits = np.array([[[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]]])
    says = {
        "labels": [0, 1, 1],
        "logits": logits,
        "norms": [[0.1, 0.5, 3.0]],
        "margin": np.tile([3, 1, -2], (4, 1)),
        "weights": [0.9, 0.8, 0.1],
    }
    for method in ("el2n", "el2n_reversed", "grand", "forgetting", "aum", "meta_weight", "meta_weight_loss"):
        knobs = BY_HAND[method][1]
        values = SCORES[method].compute(context(**says)[0], **knobs)
        hard = {"high": np.argmax, "low": np.argmin}[SCORES[method].hard_end or ""]
        assert hard(values) == 2, method


def test_undecided_and_odd_examples_are_hard_and_some_scores_have_no_hard_end():
    says = {"labels": [0, 1, 1], "logits": [[[3.0, 0.0], [0.0, 4.0], [0.1, 0.0]]]}
    for method in ("margin", "entropy"):
        values = SCORES[method].compute(context(**says)[0], models=1, steps=1)
        assert (np.argmax(values), SCORES[method].hard_end) == (2, "high")
    assert (BY_HAND["prototype"][2][0], SCORES["prototype"].hard_end) == (0.0, "high")  # the typical one is easy
    assert {name for name, one in SCORES.items() if one.hard_end is None} == {"random", "dyn_unc", "tdds", "dual"}


def test_never_learnt_counts_more_than_any_number_of_events():
    flicker = np.array([[1.0], [-1.0]] * 5)  # forgotten at every second visit: nobody can be forgotten more often
    never = -np.ones((10, 1))
    made, _ = context(labels=[0, 0], margin=np.hstack([flicker, never]))
    values = SCORES["forgetting"].compute(made, epochs=None)
    assert values.tolist() == [5.0, 10.0]


def test_margin_and_entropy_are_blind_to_labels_and_el2n_is_not():
    logits = [[[2.0, 0.0], [0.5, 1.0], [0.0, 0.3]]]

    def values(method, labels):
        return SCORES[method].compute(context(labels=labels, logits=logits)[0], models=1, steps=1)

    for method in ("margin", "entropy"):
        np.testing.assert_array_equal(values(method, (0, 1, 1)), values(method, (1, 0, 0)))
    assert not np.array_equal(values("el2n", (0, 1, 1)), values("el2n", (1, 0, 0)))


def test_el2n_is_the_mean_of_the_norms_not_the_norm_of_the_mean():
    made, _ = context(labels=(2,), logits=[[[50.0, 0.0, 0.0]], [[0.0, 50.0, 0.0]]])  # each errs by √2, together by less
    np.testing.assert_allclose(SCORES["el2n"].compute(made, models=2, steps=1), [math.sqrt(2)])


def test_random_is_uniform_seeded_and_trains_nothing():
    def values(seed):
        made, asked = context(labels=[0] * 2000, seed=seed)
        found = SCORES["random"].compute(made)
        assert not asked
        return found

    np.testing.assert_array_equal(values(0), values(0))
    assert not np.array_equal(values(0), values(1))
    assert values(0).min() >= 0
    assert values(0).max() < 1
    assert values(0).mean() == pytest.approx(0.5, abs=0.03)


def test_prototype_has_one_cluster_a_class_unless_told():
    features = np.eye(3)[[0, 0, 1, 1, 2, 2]]
    made, _ = context(labels=[0, 0, 1, 1, 2, 2], features=features)
    np.testing.assert_allclose(
        SCORES["prototype"].compute(made, **OWN_FEATURES, clusters=None), np.zeros(6), atol=1e-12
    )
    assert SCORES["prototype"].compute(made, **OWN_FEATURES, clusters=2).max() > 0.1


@pytest.mark.parametrize("method", ["forgetting", "aum", "dyn_unc", "tdds", "dual"])
def test_a_score_of_dynamics_reads_one_record_and_the_epochs_it_is_told(method):
    rng = np.random.default_rng(3)
    records: dict[str, Any] = {name: rng.random((9, 4)) for name in ("probability", "margin", "divergence")}
    knobs = dict(getattr(ScoresConfig(), method)) | {"epochs": 6}
    if "window" in knobs:
        knobs["window"] = 4
    made, asked = context(labels=[0] * 4, **records)
    SCORES[method].compute(made, **knobs)
    name = {"forgetting": "margin", "aum": "margin", "tdds": "divergence"}.get(method, "probability")
    assert asked == [(name, 6)]


@pytest.mark.parametrize("method", ["dyn_unc", "dual", "tdds"])
def test_a_window_longer_than_the_training_is_refused(method):
    made, _ = context(labels=[0, 0], probability=np.zeros((5, 2)), divergence=np.zeros((5, 2)))
    knobs = {"decay": 0.9} if method == "tdds" else {}
    with pytest.raises(ValueError, match=r"a window of (at most|3 to) 5 (observations|predictions).*, got 6"):
        SCORES[method].compute(made, window=6, epochs=None, **knobs)


def test_a_window_of_tdds_needs_two_divergences():
    made, _ = context(labels=[0, 0], divergence=np.zeros((5, 2)))
    with pytest.raises(ValueError, match="a window of 3 to 5 predictions, got 2"):
        SCORES["tdds"].compute(made, window=2, epochs=None, decay=0.9)


def test_a_feature_vector_of_zeros_has_no_direction_and_is_far_from_all():
    features = np.concatenate([np.zeros((1, 2)), np.repeat(np.eye(2), 4, axis=0)])
    made, _ = context(labels=[0] * 9, features=features)
    values = SCORES["prototype"].compute(made, **OWN_FEATURES, clusters=2)
    assert values[0] > values[1:].max() + 0.5


def test_prototype_distances_are_the_same_each_time_and_none_is_negative():
    """Of many threads' sums the last bits change from run to run; a duplicate is its own centroid, cosine 1 + 2⁻⁵²."""
    rng = np.random.default_rng(0)
    crowd, _ = context(labels=rng.integers(0, 10, 3000), features=rng.normal(size=(3000, 32)))
    with threadpool_limits(1):
        alone = SCORES["prototype"].compute(crowd, **OWN_FEATURES, clusters=None)
    with threadpool_limits(4):
        np.testing.assert_array_equal(SCORES["prototype"].compute(crowd, **OWN_FEATURES, clusters=None), alone)
    twins, _ = context(labels=np.arange(50) // 5, features=np.repeat(rng.normal(size=(10, 16)), 5, axis=0))
    assert SCORES["prototype"].compute(twins, **OWN_FEATURES, clusters=None).min() == 0


def test_more_clusters_than_examples_are_refused():
    with pytest.raises(ValueError, match="at most 2 clusters, one an example, got 3"):
        SCORES["prototype"].compute(context(labels=[0, 1], features=np.eye(2))[0], **OWN_FEATURES, clusters=3)


@pytest.mark.parametrize("method", SCORES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), batch_size=st.integers(1, 12))
def test_a_score_belongs_to_the_example_whatever_the_order_and_the_batches(method, seed, batch_size):
    rng = np.random.default_rng(seed)
    n, classes, visits = 12, 3, 8
    whole = {
        "labels": rng.integers(0, classes, n),
        "logits": rng.normal(size=(2, n, classes)),
        "norms": rng.random((2, n)),
        "features": rng.normal(size=(n, 4)),
        "weights": rng.random(n),
        "sample_ids": rng.permutation([f"x/{k}" for k in range(n)]),
        **{name: rng.normal(size=(visits, n)) for name in ("probability", "margin", "divergence")},
    }
    order = rng.permutation(n)
    first = ("labels", "weights", "sample_ids", "features")
    turned = {name: array[order] if name in first else array[:, order] for name, array in whole.items()}
    knobs = dict(getattr(ScoresConfig(), method, None) or {})
    knobs |= {name: value for name, value in {"window": 4, "epochs": None}.items() if name in knobs}
    one = SCORES[method].compute(context(**whole, batch_size=n)[0], **knobs)
    other = SCORES[method].compute(context(**turned, batch_size=batch_size)[0], **knobs)
    assert one.shape == (n,)
    assert one.dtype == np.float64
    np.testing.assert_allclose(one[order], other, rtol=1e-12)


def test_the_knobs_of_the_configuration_are_the_arguments_of_the_scores():
    configured = set(ScoresConfig.model_fields) - {"methods"}
    assert configured <= set(SCORES)
    for method, score in SCORES.items():
        arguments = set(inspect.signature(score.compute).parameters) - {"context"}
        section = ScoresConfig.model_fields[method].default if method in configured else None
        assert arguments == (set(type(section).model_fields) if section is not None else set()), method
