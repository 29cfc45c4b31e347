"""What a meta step costs, counted: acceptance 4 of the algorithm's issue."""

import pytest

from benchmarks import flops
from sama.hypergradient import METHODS

SLACK = 0.01  # the meta network's own operations


def test_operations_in_forwards_of_the_base_batch():
    found = flops.measure()
    assert found["plain step"] == pytest.approx(3.0, abs=SLACK)
    assert found["sama"] <= 8.0 + SLACK
    assert found["sama_na"] <= 8.0 + SLACK
    assert found["sama, one-sided"] <= 7.0 + SLACK
    assert found["sama, forward mode"] <= 9.0 + SLACK
    assert all(value > 6.5 for label, value in found.items() if label != "plain step")  # nothing was left out
    assert {name for name, _ in flops.METHODS.values()} == set(METHODS) - {"exact"}  # a dense solve: not at this size
