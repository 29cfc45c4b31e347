from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sama.data.noise import plant, realised
from sama.errors import SamaError

NAMES = ("cat", "dog", "truck", "automobile")


def ids(count: int) -> np.ndarray:
    return np.array([f"x/{i:05d}" for i in range(count)], dtype=np.str_)


def planted(label: np.ndarray, sample_id: np.ndarray | None = None, **changes: Any) -> np.ndarray:
    options: dict[str, Any] = {"kind": "symmetric", "rate": 0.3, "flips": None, "seed": 0, "part": 0, "where": "train"}
    return plant(label, ids(len(label)) if sample_id is None else sample_id, NAMES, **(options | changes))


labels = st.lists(st.integers(0, 3), min_size=1, max_size=120).map(lambda values: np.array(values, dtype=np.int64))


@given(labels, st.floats(0.0, 0.99), st.sampled_from(["symmetric", "asymmetric"]), st.integers(0, 2**31))
def test_the_rate_is_exact_and_no_label_goes_to_itself_or_outside(label, rate, kind, seed):
    before = label.copy()
    observed = planted(label, kind=kind, rate=rate, seed=seed)
    assert np.sum(observed != label) == int(rate * len(label) + 0.5)
    assert np.array_equal(label, before)
    assert observed.min() >= 0 and observed.max() < len(NAMES)


@given(labels, st.sampled_from(["symmetric", "asymmetric"]), st.randoms(use_true_random=False))
def test_noise_goes_by_id_not_by_the_order_of_the_examples(label, kind, random):
    order = list(range(len(label)))
    random.shuffle(order)
    straight = planted(label, kind=kind)
    assert np.array_equal(straight[order], planted(label[order], ids(len(label))[order], kind=kind))


def test_seeds_and_splits_draw_apart():
    label = np.zeros(200, dtype=np.int64)
    first = planted(label)
    assert np.array_equal(first, planted(label))
    assert np.mean((first != 0) != (planted(label, seed=1) != 0)) > 0.2
    assert np.mean((first != 0) != (planted(label, part=2) != 0)) > 0.2


def test_symmetric_noise_reaches_every_other_class_equally():
    label = np.full(9000, 2, dtype=np.int64)
    reached = np.bincount(planted(label, rate=0.9), minlength=4)
    assert reached[2] == 900
    assert np.all(np.abs(reached[[0, 1, 3]] - 2700) < 200)


def test_asymmetric_noise_goes_to_the_next_class_or_where_flips_say():
    label = np.repeat(np.arange(4), 50)
    observed = planted(label, kind="asymmetric", rate=0.4)
    wrong = observed != label
    assert np.array_equal(observed[wrong], (label[wrong] + 1) % 4)
    observed = planted(label, kind="asymmetric", rate=0.4, flips={"truck": "automobile", "cat": "dog"})
    wrong = observed != label
    assert wrong.sum() == 80
    assert set(zip(label[wrong].tolist(), observed[wrong].tolist(), strict=True)) == {(2, 3), (0, 1)}


def test_no_noise_is_a_copy():
    label = np.arange(4)
    observed = planted(label, kind="none", rate=0.0)
    assert np.array_equal(observed, label) and observed is not label


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flips": {"trucc": "cat"}}, "flips: unknown class 'trucc', got 4 classes; did you mean 'truck'?"),
        ({"flips": {"cat": "dgo"}}, "flips: unknown class 'dgo', got 4 classes; did you mean 'dog'?"),
        ({"flips": {"cat": "cat"}}, "flips: class 'cat' is flipped to itself"),
        ({"flips": {"cat": "dog"}, "rate": 0.5}, "split 'train' is 20 wrong labels, but only 10 examples"),
    ],
)
def test_wrong_flips_say_what_is_wrong(changes, message):
    with pytest.raises(SamaError) as raised:
        planted(np.repeat(np.arange(4), 10), kind="asymmetric", **changes)
    assert message in str(raised.value)


def test_one_class_cannot_be_confused():
    with pytest.raises(SamaError, match="at least two classes"):
        plant(
            np.zeros(3, dtype=np.int64), ids(3), ("cat",), kind="symmetric", rate=0.5, flips=None, seed=0, part=0,
            where="train",
        )  # fmt: skip


def test_realised_noise():
    assert realised(np.array([0, 1, 1, 3]), np.array([0, 1, 2, 3])) == {"wrong": 1, "rate": 0.25}
