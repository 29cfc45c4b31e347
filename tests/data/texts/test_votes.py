import numpy as np
import pytest

from sama.data.texts.votes import AGGREGATORS, aggregate, majority_vote, vote_report
from sama.errors import SamaError

#                 majority: 0        tie 0, 2       none            2
VOTES = np.array([[0, 0, 1], [0, -1, 2], [-1, -1, -1], [2, -1, -1]])


def ids(count: int) -> np.ndarray:
    return np.array([f"t/{i:05d}" for i in range(count)])


def test_majority_vote_gives_the_shares_of_the_votes():
    expected = [[2 / 3, 1 / 3, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]]
    assert np.allclose(majority_vote(VOTES, 3), expected, atol=0, rtol=1e-15)


@pytest.mark.parametrize("method", AGGREGATORS)
def test_texts_without_a_vote_are_dropped_or_uniform(method):
    dropped = aggregate(VOTES, ids(4), 3, method=method, uncovered="drop")
    kept = aggregate(VOTES, ids(4), 3, method=method, uncovered="uniform")
    assert dropped.rows.tolist() == [0, 1, 3] and dropped.covered.all()
    assert kept.rows.tolist() == [0, 1, 2, 3] and kept.covered.tolist() == [True, True, False, True]
    assert kept.soft[2].tolist() == [1 / 3] * 3
    assert np.array_equal(dropped.soft, kept.soft[dropped.rows])
    assert np.array_equal(dropped.hard, kept.hard[dropped.rows])
    assert np.allclose(kept.soft.sum(axis=1), 1)


def test_ties_go_by_lot_of_id_and_seed_and_favour_no_class():
    votes = np.tile([[0, 2]], (3000, 1))
    first, again, other = (aggregate(votes, ids(3000), 3, method="majority_vote", seed=seed).hard for seed in (0, 0, 1))
    assert set(first.tolist()) == {0, 2} and np.array_equal(first, again)
    assert abs(np.mean(first == 0) - 0.5) < 0.05 and 0.4 < np.mean(first != other) < 0.6
    order = np.random.default_rng(0).permutation(3000)[:100]
    some = aggregate(votes[order], ids(3000)[order], 3, method="majority_vote", seed=0).hard
    assert np.array_equal(some, first[order])


def test_the_report_counts_by_hand():
    report = vote_report(VOTES, np.array([0, 2, 1, -1]), ("a", "b", "c"), ("x", "y", "z"))
    functions = report.pop("functions")
    # text 0 right, text 1 a tie with the right one in it, text 2 not covered, text 3 unknown
    assert report == {"texts": 4, "coverage": 0.75, "overlap": 0.5, "conflict": 0.5, "majority_accuracy": 0.75}
    assert functions == [
        {"name": "x", "classes": ["a", "c"], "coverage": 0.75, "overlap": 0.5, "conflict": 0.5, "accuracy": 0.5},
        {"name": "y", "classes": ["a"], "coverage": 0.25, "overlap": 0.25, "conflict": 0.25, "accuracy": 1.0},
        {"name": "z", "classes": ["b", "c"], "coverage": 0.5, "overlap": 0.5, "conflict": 0.5, "accuracy": 0.5},
    ]


def test_agreement_is_no_conflict_and_unknown_labels_give_no_accuracy():
    report = vote_report(np.array([[1, 1], [-1, 0]]), np.array([-1, -1]), ("a", "b"))
    assert (report["overlap"], report["conflict"], report["majority_accuracy"]) == (0.5, 0.0, None)
    assert [(f["overlap"], f["conflict"]) for f in report["functions"]] == [(0.5, 0.0), (0.5, 0.0)]
    assert [f["name"] for f in report["functions"]] == ["0", "1"] and report["functions"][0]["accuracy"] is None


def test_what_cannot_be_aggregated_is_said():
    with pytest.raises(SamaError, match="all 3 labelling functions abstain on all 2 texts"):
        aggregate(np.full((2, 3), -1), ids(2), 3, method="majority_vote")
    for method in AGGREGATORS:
        with pytest.raises(ValueError, match=r"text 3, function 0: expected a vote in 0..1 or -1, got 2"):
            aggregate(np.array([[0], [1], [-1], [2]]), ids(4), 2, method=method)
    with pytest.raises(ValueError, match="expected a method of majority_vote, dawid_skene, got 'snorkel'"):
        aggregate(VOTES, ids(4), 3, method="snorkel")
    with pytest.raises(ValueError, match="drop or uniform, got 'keep'"):
        aggregate(VOTES, ids(4), 3, method="majority_vote", uncovered="keep")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"expected votes \[texts, functions\], got \[3\]"):
        majority_vote(np.array([0, 1, 2]), 3)
