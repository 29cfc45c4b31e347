"""Selection: exact counts, known cases, neutral ties, and in the order of the data's ids, not of its rows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta as beta_distribution

from sama.selection import STRATEGIES, keep
from sama.selection.ties import lots

OPTIONS = {
    "stratified": {"strata": 4, "hard_cutoff": 0.1},
    "d2": {"neighbors": 3, "gamma_forward": 1.0, "gamma_reverse": 1.0},
    "beta": {"concentration": 15.0, "power": 4.0},
}


def ids(n):
    return np.array([f"x/{k:03d}" for k in range(n)])


def kept_of(scores, strategy, ratio, *, labels=None, features=None, probability=None, seed=0, hard_end=None, **options):
    """Row numbers of what stays."""
    scores = np.asarray(scores, dtype=float)
    labels = np.zeros(len(scores), dtype=int) if labels is None else np.asarray(labels)
    mask = keep(
        scores, labels, ids(len(scores)), pruning_ratio=ratio, strategy=strategy, seed=seed, hard_end=hard_end,
        features=features, probability=probability, options=options,
    )  # fmt: skip
    return np.flatnonzero(mask).tolist()


def test_global_and_class_balanced_by_hand():
    scores, labels = [0.1, 0.9, 0.5, 0.4, 0.2, 0.8], [0, 0, 0, 1, 1, 1]
    assert kept_of(scores, "global", 0.5, labels=labels) == [1, 2, 5]
    assert kept_of(scores, "class_balanced", 1 / 3, labels=labels) == [1, 2, 3, 5]


def test_of_equal_scores_the_lot_decides_and_the_seed_draws_it():
    assert {len(kept_of([1, 1, 1, 1, 0], "global", 0.4, seed=seed)) for seed in range(20)} == {3}
    drawn = {tuple(kept_of([1, 1, 1, 1, 0], "global", 0.4, seed=seed)) for seed in range(40)}
    assert len(drawn) == 4  # which of the four equals goes
    assert all(4 not in rows for rows in drawn)


@pytest.mark.parametrize("strategy", ["global", "stratified", "d2", "beta"])
def test_ties_favour_no_class_though_ids_begin_with_it(strategy):
    names = np.array([f"{label}/{k:03d}" for label in ("airplane", "truck") for k in range(300)])
    labels = np.repeat([0, 1], 300)
    features = np.ones((600, 2))
    mask = keep(
        np.zeros(600), labels, names, pruning_ratio=0.5, strategy=strategy, hard_end="high", features=features,
        probability=np.full(600, 0.5), options=OPTIONS.get(strategy),
    )  # fmt: skip
    assert mask.sum() == 300
    assert abs(mask[labels == 0].sum() - 150) < 40  # binomial: five deviations are 43


def test_lots_are_a_shuffle_of_the_ids():
    names = ids(50)
    ticket = lots(names, 0)
    assert sorted(ticket) == list(range(50))
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(lots(names[order], 0), ticket[order])
    assert not np.array_equal(lots(names, 1), ticket)
    assert abs(np.corrcoef(ticket, np.arange(50))[0, 1]) < 0.5


def test_stratified_by_hand():
    """Strata of width 1 on [0, 4]: six, one, none and three examples; of the budget of six each gives its part."""
    scores = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.5, 3.2, 3.6, 4.0]
    rows = kept_of(scores, "stratified", 0.4, hard_end="high", strata=4, hard_cutoff=0.0)
    by_stratum = [sum(row in part for row in rows) for part in ([0, 1, 2, 3, 4, 5], [6], [7, 8, 9])]
    assert by_stratum == [3, 1, 2]  # 6 // 3 = 2, but there is one; 5 // 2 = 2; 3 // 1 = 3


def test_the_hard_cutoff_removes_the_hard_end_first():
    scores = np.arange(10.0)

    def rows(hard_end):
        return kept_of(scores, "stratified", 0.2, hard_end=hard_end, strata=50, hard_cutoff=0.2)

    assert rows("high") == list(range(8))
    assert rows("low") == list(range(2, 10))
    with pytest.raises(ValueError, match=r"a hard cutoff of 0.3 leaves 7 examples, expected 8 to keep"):
        kept_of(scores, "stratified", 0.2, hard_end="low", strata=50, hard_cutoff=0.3)
    assert len(kept_of(scores, "stratified", 0.2, hard_end=None, strata=50, hard_cutoff=0.3)) == 8  # no hard end


def test_stratified_covers_where_global_does_not():
    scores = np.concatenate([np.linspace(0, 0.01, 90), np.linspace(0.5, 1, 10)])
    rows = kept_of(scores, "stratified", 0.8, hard_end="high", strata=10, hard_cutoff=0.0)
    assert sum(row >= 90 for row in rows) == 10
    assert sum(row < 90 for row in rows) == 10


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_d2_by_hand():
    """A pair of neighbours with scores 1 and 0.9, and a third far off with 0: the pair's second is what goes."""
    features = on_circle(0, 10, 180, 185)
    options = {"neighbors": 1, "gamma_forward": 1.0, "gamma_reverse": 1.0}
    scores = [1.0, 0.9, 0.0, 0.4]
    assert kept_of(scores, "global", 0.5) == [0, 1]
    assert kept_of(scores, "d2", 0.5, features=features, **options) == [0, 3]
    squared = 2 - 2 * math.cos(math.radians(10))
    first, second = 1.0 + math.exp(-squared) * 0.9, 0.9 + math.exp(-squared) * 1.0
    far = 0.4  # its neighbour sends nothing
    assert second - math.exp(-squared) * first < far  # so the far one comes second
    # the kept neighbour's claim fades at once, and the pair stays together
    assert kept_of(scores, "d2", 0.5, features=features, **{**options, "gamma_reverse": 1e6}) == [0, 1]


def test_d2_neighbours_are_mutual():
    """Each of 0°, 10°, 25° and 180° has one nearest; 25° is nearest to 180° alone, but hears 10° and 180°."""
    options = {"neighbors": 1, "gamma_forward": 0.0, "gamma_reverse": 1e6}
    rows = kept_of([0.0, 0.3, 1.0, 0.9], "d2", 0.7, features=on_circle(0, 10, 25, 180), **options)
    assert rows == [2]  # 1.0 + 0.3 + 0.9; heard one way only, 180° would lead with 0.9 + 1.0


def test_d2_forward_messages_favour_dense_regions():
    features = on_circle(0, 1, 2, 90, 180)
    scores = [0.5, 0.5, 0.5, 0.55, 0.0]
    options = {"neighbors": 2, "gamma_forward": 10.0, "gamma_reverse": 1e6}
    assert 3 not in kept_of(scores, "d2", 0.4, features=features, **options)
    assert 3 in kept_of(scores, "d2", 0.4, features=features, **{**options, "gamma_forward": 1e6})


def d2_written_out(scores, features, budget, neighbors, gamma_forward, gamma_reverse):
    """The formulas with whole matrices; no ties."""
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    squared = np.square(units[:, None] - units[None]).sum(axis=-1)
    edge = np.zeros(squared.shape, dtype=bool)
    np.put_along_axis(edge, np.argsort(squared + 9 * np.eye(len(units)), axis=1)[:, :neighbors], True, axis=1)
    edge |= edge.T
    spread = scores.max() - scores.min()
    start = (scores - scores.min()) / spread if spread else np.ones(len(scores))
    values = start + (edge * np.exp(-gamma_forward * squared)) @ start
    kept = []
    for _ in range(budget):
        best = max(set(range(len(values))) - set(kept), key=lambda place: values[place])
        values = values - edge[best] * np.exp(-gamma_reverse * squared[best]) * values[best]
        kept.append(best)
    return sorted(kept)


@pytest.mark.parametrize("equal", [False, True])
def test_d2_written_out(equal):
    rng = np.random.default_rng(0)
    for _ in range(10):
        scores, features = rng.normal(5.0, 2.0, 30), rng.normal(size=(30, 4)) * rng.uniform(0.1, 9, (30, 1))
        options = {"neighbors": 4, "gamma_forward": 0.7, "gamma_reverse": 0.3}
        scores = np.full(30, 2.0) if equal else scores
        found = kept_of(scores, "d2", 0.6, features=features, **options)
        assert found == d2_written_out(scores, features, 12, **options)


def drawn(scores, probability, ratio, draws=1500):
    """How often each example is kept, with the constants of the paper."""
    counts = np.zeros(len(scores))
    for seed in range(draws):
        rows = kept_of(scores, "beta", ratio, probability=np.array(probability), seed=seed, **OPTIONS["beta"])
        counts[rows] += 1
    return counts / draws


def test_beta_draws_by_density_times_score():
    """One of twelve is drawn; ten of them lead with a mean probability of 0.39, so that β = 15 · 0.61 · (1 − r⁴).

    Were there nine or eleven leaders, or α + β one less, some example would be drawn more or less often by 0.08.
    """
    scores = np.array([0.0, 0.5, *np.linspace(1, 2, 10)])
    probability = np.array([0.25, 0.95, 0.05, 0.65, 0.3, 0.55, 0.65, 0.05, 0.65, 0.45, 0.4, 0.15])
    ratio = 0.92
    b = 15 * (1 - probability[2:].mean()) * (1 - ratio**4)
    weights = beta_distribution.pdf(probability, 16 - b, b) * scores
    np.testing.assert_allclose(drawn(scores, probability, ratio), weights / weights.sum(), atol=0.04)


def test_beta_always_draws_where_the_density_is_infinite():
    probability = np.linspace(0.9, 1.0, 12)  # β < 1
    assert drawn(np.ones(12), probability, 0.9, 20)[-1] == 1


def test_beta_draws_easier_examples_the_more_is_pruned():
    probability = np.linspace(0.05, 0.95, 40)
    scores = np.exp(-(((probability - 0.3) / 0.1) ** 2)) + 0.05  # high at moderate difficulty
    means = [probability @ drawn(scores, probability, ratio, 40) / (40 * (1 - ratio)) for ratio in (0.3, 0.7, 0.9)]
    assert means[0] < means[1] < means[2]
    assert means[2] > 0.6


@settings(deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=4, max_size=40),
    ratio=st.floats(0.15, 0.7),
    strategy=st.sampled_from(STRATEGIES),
    hard_end=st.sampled_from(["high", "low", None]),
    seed=st.integers(0, 1000),
)
def test_does_not_depend_on_the_order_of_the_rows(scores, ratio, strategy, hard_end, seed):
    generator = np.random.default_rng(seed)
    values, labels, names = np.array(scores), generator.integers(0, 3, len(scores)), ids(len(scores))
    features = generator.integers(-1, 2, (len(scores), 2)).astype(float)  # many are the same
    likely = generator.choice([0.0, 0.3, 0.9, 1.0], len(scores))
    options = {"hard_end": hard_end, "options": OPTIONS.get(strategy), "pruning_ratio": ratio, "strategy": strategy}
    kept = set(names[keep(values, labels, names, features=features, probability=likely, **options)])
    order = generator.permutation(len(scores))
    turned = {"features": features[order], "probability": likely[order]}
    again = keep(values[order], labels[order], names[order], **turned, **options)
    assert set(names[order][again]) == kept
    if strategy == "class_balanced":
        for label in np.unique(labels):
            members = names[labels == label]
            assert np.isin(members, list(kept)).sum() == len(members) - round(ratio * len(members))
    else:
        assert len(kept) == len(scores) - round(ratio * len(scores))
    if strategy == "global":
        assert values[~np.isin(names, list(kept))].max(initial=-1) <= values[np.isin(names, list(kept))].min()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pruning_ratio": 1.0}, r"pruning ratio in \(0, 1\), got 1.0"),
        ({"pruning_ratio": 0.0}, "got 0.0"),
        (
            {"strategy": "best"},
            "unknown selection strategy 'best': expected one of global, class_balanced, stratified, d2, beta",
        ),
        ({"scores": np.array([0.1, np.nan, 0.3])}, "the score of x/001 is nan, expected a finite number"),
        ({"scores": np.array([0.1, np.inf, 0.3])}, "the score of x/001 is inf, expected a finite number"),
        ({"sample_ids": np.array(["a", "a", "b"])}, "sample ids repeat"),
        ({"pruning_ratio": 0.9}, "leaves none"),
        ({"strategy": "d2"}, "d2 needs features of the examples, got none"),
        (
            {"strategy": "d2", "features": np.full((3, 2), np.nan), "options": OPTIONS["d2"]},
            "features are not finite",
        ),
        ({"strategy": "beta"}, "beta needs the probabilities of the labels in training, got none"),
        (
            {
                "strategy": "beta",
                "scores": np.array([0.1, -0.2, 0.3]),
                "probability": np.full(3, 0.5),
                "options": OPTIONS["beta"],
            },
            r"beta draws in proportion to the scores, expected none below 0, got -0\.2",
        ),
        (
            {"strategy": "beta", "probability": np.array([0.1, 1.5, 0.3]), "options": OPTIONS["beta"]},
            r"the mean probability of every label in \[0, 1\]",
        ),
        (
            {"strategy": "beta", "probability": np.array([0.1, -0.5, 0.3]), "options": OPTIONS["beta"]},
            r"the mean probability of every label in \[0, 1\]",
        ),
    ],
)
def test_bad_input(change, message):
    arguments = {"scores": np.array([0.1, 0.2, 0.3]), "labels": np.zeros(3), "sample_ids": ids(3)}
    arguments |= {"pruning_ratio": 0.5, "strategy": "global"} | change
    with pytest.raises(ValueError, match=message):
        keep(**arguments)
