"""Selection: exact counts, deterministic under ties, and in the order of the data's ids, not of its rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sama.selection import STRATEGIES, keep


def ids(n):
    return np.array([f"x/{k:03d}" for k in range(n)])


def test_by_hand():
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.2, 0.8])
    labels = np.array([0, 0, 0, 1, 1, 1])
    kept = keep(scores, labels, ids(6), pruning_ratio=0.5, strategy="global")
    assert ids(6)[kept].tolist() == ["x/001", "x/003", "x/005"]  # of the tie 002, 003 the later id stays
    kept = keep(scores, labels, ids(6), pruning_ratio=1 / 3, strategy="class_balanced")
    assert ids(6)[~kept].tolist() == ["x/000", "x/004"]


@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=4, max_size=40),
    ratio=st.floats(0.05, 0.7),
    strategy=st.sampled_from(STRATEGIES),
    seed=st.integers(0, 1000),
)
def test_does_not_depend_on_the_order_of_the_rows(scores, ratio, strategy, seed):
    generator = np.random.default_rng(seed)
    values, labels, names = np.array(scores), generator.integers(0, 3, len(scores)), ids(len(scores))
    kept = set(names[keep(values, labels, names, pruning_ratio=ratio, strategy=strategy)])
    order = generator.permutation(len(scores))
    again = keep(values[order], labels[order], names[order], pruning_ratio=ratio, strategy=strategy)
    assert set(names[order][again]) == kept
    if strategy == "global":
        assert len(kept) == len(scores) - round(ratio * len(scores))
        assert values[~np.isin(names, list(kept))].max(initial=-1) <= values[np.isin(names, list(kept))].min()
    else:
        for label in np.unique(labels):
            members = names[labels == label]
            assert np.isin(members, list(kept)).sum() == len(members) - round(ratio * len(members))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pruning_ratio": 1.0}, r"pruning ratio in \(0, 1\), got 1.0"),
        ({"pruning_ratio": 0.0}, "got 0.0"),
        ({"strategy": "best"}, "unknown selection strategy 'best': expected one of global, class_balanced"),
        ({"scores": np.array([0.1, np.nan, 0.3])}, "the score of x/001 is NaN"),
        ({"sample_ids": np.array(["a", "a", "b"])}, "sample ids repeat"),
        ({"pruning_ratio": 0.9}, "leaves none"),
    ],
)
def test_bad_input(change, message):
    arguments = {"scores": np.array([0.1, 0.2, 0.3]), "labels": np.zeros(3), "sample_ids": ids(3)}
    arguments |= {"pruning_ratio": 0.5, "strategy": "global"} | change
    with pytest.raises(ValueError, match=message):
        keep(**arguments)
