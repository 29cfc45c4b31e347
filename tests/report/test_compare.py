import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sama.report.compare import MIN_SEEDS, differs_from, leader, paired, spread

accuracies = st.lists(st.floats(0, 1).map(lambda value: round(value, 4)), min_size=1, max_size=8)


def test_spread_is_the_sample_sd():
    found = spread([0.1, 0.2, 0.6])
    assert (found.mean, found.sd, found.n) == pytest.approx((0.3, np.std([0.1, 0.2, 0.6], ddof=1), 3))


def test_spread_of_one_seed_is_unknown():
    assert spread([0.5]).sd is None


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one value, got none"):
        spread([])


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(accuracies.filter(lambda values: len(values) >= MIN_SEEDS), st.randoms(use_true_random=False))
def test_clear_is_the_paired_t_test(values, random):
    others = [random.random() for _ in values]
    p_value = stats.ttest_rel(values, others).pvalue
    assert paired(values, others).clear == (p_value < 0.05)


@pytest.mark.parametrize("n", range(1, MIN_SEEDS))
def test_few_seeds_are_never_clear(n):
    assert not paired([0.9 + i / 1000 for i in range(n)], [0.1] * n).clear


def test_pairing_sees_what_pooling_would_not():
    base = np.array([0.5, 0.7, 0.9])  # seeds differ much, methods little but always
    comparison = paired(list(base + np.array([0.02, 0.021, 0.019])), list(base))
    assert comparison.clear
    assert comparison.sign == 1
    assert (comparison.higher_on, comparison.lower_on) == (3, 0)


def test_differs_from_a_constant():
    assert differs_from([0.2, 0.21, 0.22], 0.5) == -1
    assert differs_from([0.2, 0.5, 0.9], 0.5) == 0


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="got 2 and 3"):
        paired([1, 2], [1, 2, 3])


def test_leader_must_be_clear_of_every_other():
    values = {"a": [0.90, 0.91, 0.92], "b": [0.90, 0.92, 0.90], "c": [0.1, 0.1, 0.12]}
    found = leader(values)
    assert (found.name, found.second, found.clear) == ("a", "b", False)
    assert leader({"a": values["a"], "c": values["c"]}).clear


def test_a_noisy_third_can_spoil_a_clear_lead_over_the_second():
    values = {"a": [0.90, 0.91, 0.92], "b": [0.80, 0.81, 0.82], "c": [0.91, 0.50, 0.90]}
    found = leader(values)
    assert found.second == "b"
    assert found.lead is not None
    assert found.lead.clear
    assert not found.clear


def test_the_only_method_is_not_the_best():
    assert not leader({"a": [0.9, 0.9, 0.9]}).clear
