import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sama.data.splits import balanced_subset, check_classes, even, proportional, split_sizes, stratified_splits
from sama.errors import SamaError


def ids(count: int) -> np.ndarray:
    return np.array([f"x/{i:05d}" for i in range(count)], dtype=np.str_)


@st.composite
def pools(draw: st.DrawFn) -> tuple[np.ndarray, dict[str, int], int]:
    """Labels in random order, sizes that fit, a seed."""
    counts = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    label = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rng.shuffle(label)
    left, sizes = len(label), {}
    for name in ("test", "validation", "meta"):
        sizes[name] = draw(st.integers(0, left))
        left -= sizes[name]
    return label, sizes, draw(st.integers(0, 2**31))


@given(pools())
def test_each_split_has_its_exact_size_and_its_share_of_each_class(pool):
    label, sizes, seed = pool
    split = stratified_splits(label, ids(len(label)), sizes, seed)
    assert {name: int(np.sum(split == name)) for name in sizes} == sizes
    assert np.sum(split == "train") == len(label) - sum(sizes.values())
    left = np.bincount(label)
    for name, size in sizes.items():
        share = np.bincount(label[split == name], minlength=len(left))
        if left.sum():
            assert np.all(np.abs(share - size * left / left.sum()) < 1.0)
        left = left - share


@given(pools(), st.randoms(use_true_random=False))
def test_a_split_goes_by_id_not_by_the_order_of_the_examples(pool, random):
    label, sizes, seed = pool
    order = list(range(len(label)))
    random.shuffle(order)
    straight = stratified_splits(label, ids(len(label)), sizes, seed)
    shuffled = stratified_splits(label[order], ids(len(label))[order], sizes, seed)
    assert np.array_equal(straight[order], shuffled)


def test_a_seed_gives_the_same_split_and_another_seed_another():
    label = np.arange(200) % 4
    sizes = {"test": 40, "validation": 20, "meta": 20}
    first, again, other = (stratified_splits(label, ids(200), sizes, seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert np.mean(first != other) > 0.3


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(sum), st.data())
def test_proportional_and_even_give_the_size_and_never_more_than_there_is(counts, data):
    counts = np.array(counts)
    size = data.draw(st.integers(0, int(counts.sum())))
    for share in (proportional(counts, size), even(counts, size)):
        assert share.sum() == size
        assert np.all((share >= 0) & (share <= counts))
    level = even(counts, size)
    unfilled = level[level < counts]
    assert not len(unfilled) or level.max() - unfilled.min() <= 1


def test_shares_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="between 0 and 3, got 4"):
        proportional(np.array([1, 2]), 4)
    with pytest.raises(ValueError, match="at most 3, got 4"):
        even(np.array([1, 2]), 4)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_a_subset_is_balanced_stable_and_goes_by_id(counts, data):
    label = np.repeat(np.arange(len(counts)), counts)
    names = ids(len(label))
    size = data.draw(st.integers(1, len(label)))
    chosen = balanced_subset(label, names, size)
    assert len(np.unique(chosen)) == size
    assert np.array_equal(np.bincount(label[chosen], minlength=len(counts)), even(np.array(counts), size))
    order = np.array(data.draw(st.permutations(range(len(label)))))
    shuffled = balanced_subset(label[order], names[order], size)
    assert sorted(names[chosen]) == sorted(names[order][shuffled])
    assert np.array_equal(np.sort(shuffled), shuffled)


def test_a_subset_of_all_is_all_and_a_small_one_is_no_prefix():
    label = np.zeros(100, dtype=np.int64)
    assert np.array_equal(balanced_subset(label, ids(100), None), np.arange(100))
    assert np.array_equal(balanced_subset(label, ids(100), 500), np.arange(100))
    assert balanced_subset(label, ids(100), 10).max() > 30


def sizes_of(**changes):
    given = {"pool": 1000, "meta": 100, "validation": 0.1, "test": 0.2, "meta_set": "clean_held_out"}
    given |= {"source": "digits", "has_test": False} | changes
    return split_sizes(given.pop("pool"), given.pop("meta"), given.pop("validation"), given.pop("test"), **given)


def test_sizes_are_counts_fractions_or_the_sources_own():
    assert sizes_of() == {"test": 200, "validation": 100, "meta": 100}
    assert sizes_of(pool=1797, test=0.5, validation=7) == {"test": 899, "validation": 7, "meta": 100}
    assert sizes_of(test=None, has_test=True) == {"validation": 100, "meta": 100}
    assert sizes_of(meta_set="training") == {"test": 200, "validation": 100}


def test_sizes_that_do_not_fit_say_so():
    with pytest.raises(
        SamaError, match=r"splits\.test: null means .* source 'digits' has none: set a count or a fraction"
    ):
        sizes_of(test=None)
    with pytest.raises(
        SamaError, match=r"test 800 \+ validation 100 \+ meta 100 = 1000 examples leave none of .* 1000"
    ):
        sizes_of(test=800)


def test_a_class_without_an_example_is_named_with_its_split_and_counts():
    label, split = np.array([0, 0, 1, 1]), np.array(["train", "train", "train", "test"])
    check_classes(label, split, ["cat", "dog"], ["train"])
    expected = r"class 'cat' has no example in split 'test' \(1 examples of 1 classes; 2 of this class over all splits"
    with pytest.raises(SamaError, match=expected):
        check_classes(label, split, ["cat", "dog"], ["train", "test"])
