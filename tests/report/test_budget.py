"""What the report says of the budget is read from the trainings, so it must follow them."""

import numpy as np
import pytest

from sama.errors import SamaError
from sama.files import read_json, write_json
from sama.report import budget, captions, reading, tables
from sama.report.loading import load
from sama.training import Cost
from tests.planted_results import build


def made(root, **options):
    config = build(root, **{"train": 60, "seeds": (0, 1), "methods": ("random", "margin"), **options})
    return root / config.experiment, load(root / config.experiment, config.scores.methods)


def test_units_are_those_of_the_trainings(tmp_path):
    cost = Cost(forward_examples=70, backward_examples=11)
    write_json(tmp_path / "summary.json", {"steps": 3, "examples": 5, "cost": cost.as_dict()})
    assert reading.training(tmp_path / "summary.json") == reading.Training(3, 5, cost.units)


def test_the_same_steps_cost_one_training_each(tmp_path):
    _, results = made(tmp_path)
    assert budget.budget_text(results).startswith("Every retraining takes 100 optimizer steps")
    assert budget.total_cost(results)["margin"] == {ratio: [2.0, 2.0] for ratio in (0.3, 0.5, 0.7)}
    assert "With retraining" in tables.cost_table(results).header
    assert "100 optimizer steps" in captions.accuracy_caption(results)


def test_the_same_epochs_cost_the_kept_fraction(tmp_path):
    _, results = made(tmp_path, same_epochs=True)
    text = budget.budget_text(results)
    assert "the same number of epochs: between 30 and 100 optimizer steps" in text
    assert text in captions.cost_and_accuracy_caption(results)
    assert budget.total_cost(results)["margin"] == {
        ratio: pytest.approx([2 - ratio, 2 - ratio]) for ratio in (0.3, 0.5, 0.7)
    }
    table = tables.cost_table(results)
    assert table.header[2:] == [f"With retraining, {ratio} % pruned" for ratio in (30, 50, 70)]
    assert [cell.text for cell in table.rows[1]] == ["Margin", "1.00", "1.70", "1.50", "1.30"]


def test_one_odd_training_is_not_hidden(tmp_path):
    results, _ = made(tmp_path)
    path = results / "models/seed1/margin_0.5/summary.json"
    write_json(path, {**read_json(path), "steps": 90})
    assert budget.budget_text(load(results)) == "The retrainings take between 90 and 100 optimizer steps."


def test_a_summary_without_its_cost_is_named(tmp_path):
    results, _ = made(tmp_path)
    path = results / "models/seed1/margin_0.5/summary.json"
    write_json(path, {"steps": 3, "examples": 4})
    with pytest.raises(SamaError, match=r"margin_0.5/summary.json: expected steps, examples and cost of a training"):
        load(results)


def test_what_the_lists_share_is_counted_from_them(tmp_path):
    results, loaded = made(tmp_path)
    one, other = (
        set(reading.read_parquet(results / f"kept/seed1/{method}_0.7.parquet", ["sample_id"])["sample_id"])
        for method in ("random", "margin")
    )
    assert loaded.agreement.shared[0.7][1][0, 1] == pytest.approx(len(one & other) / len(one))
    assert loaded.agreement.kept_fraction[0.7] == pytest.approx(0.3)
    table = tables.shared_table(loaded)
    mean = 100 * np.mean(loaded.agreement.shared[0.7][:, 0, 1])
    assert table.rows[0][-1].text.startswith(f"{mean:.1f} ±")
    assert [cell.text for cell in table.rows[-1]][1:] == ["70 %", "50 %", "30 %"]
