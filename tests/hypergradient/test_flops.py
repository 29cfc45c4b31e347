"""What a meta step costs, counted: acceptance 4 of the algorithm's issue."""

import pytest

from benchmarks import flops
from sama.config import validate
from sama.hypergradient import METHODS
from sama.meta_training import base_passes, meta_cost

SLACK = 0.01  # the meta network's own operations


@pytest.fixture(scope="module")
def found():
    return flops.measure()


def test_operations_in_forwards_of_the_base_batch(found):
    assert found["plain step"] == pytest.approx(3.0, abs=SLACK)
    assert found["sama"] <= 8.0 + SLACK
    assert found["sama_na"] <= 8.0 + SLACK
    assert found["sama, one-sided"] <= 7.0 + SLACK
    assert found["sama, forward mode"] <= 9.0 + SLACK
    assert found["sama, one-sided"] < found["sama"] < found["sama, forward mode"]
    assert all(value > 6.5 for label, value in found.items() if label != "plain step")  # nothing was left out
    assert {name for name, _ in flops.METHODS.values()} == set(METHODS) - {"exact"}  # a dense solve: not at this size


@pytest.mark.parametrize("label", flops.METHODS)
def test_meta_training_reports_what_was_counted(found, label):
    method, options = flops.METHODS[label]
    meta = validate(
        {"meta": {"method": method, "options": options, "unroll_steps": 1, "batch_size": 7,
                  "network": {"features": ["loss"]}, "training": {"steps": 3, "batch_size": 7}}}
    ).meta  # fmt: skip
    cost = meta_cost(meta.training, meta, teacher=False, parameters=0)
    assert cost.units / (3 * 7) == pytest.approx(found[label], abs=SLACK)


def test_exact_costs_a_hessian_product_a_parameter():
    of_exact, of_cg = (
        validate({"meta": {"method": method, "options": options}}).meta
        for method, options in [("exact", {}), ("cg", {"iterations": 12})]
    )
    assert base_passes(of_exact, 12) == base_passes(of_cg, 12) == (1, 38)
