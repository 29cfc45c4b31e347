"""What the benchmark of several processes counts; no time is looked at but that there is one."""

import pytest

from benchmarks import scaling
from benchmarks.workload import Shape, make_loop
from sama.errors import SamaError

SMALL = Shape(width=8, layers=1, tokens=4, vocabulary=20, heads=2, meta_width=4)


def test_the_bytes_of_a_meta_step_are_those_of_the_meta_parameters():
    shapes = [SMALL, Shape(width=16, layers=1, tokens=4, vocabulary=20, heads=2, meta_width=4)]
    shapes.append(Shape(width=8, layers=1, tokens=4, vocabulary=20, heads=2, meta_width=9))
    rows = scaling.moved(shapes, 2)
    for shape, row in zip(shapes, rows, strict=True):
        theta, lam = (list(m.parameters()) for m in (make_loop(shape, 1).base, make_loop(shape, 1).meta))
        used = len(theta)  # a value a parameter says whether anybody used it
        assert row["base_step_bytes"] == 4 * (sum(p.numel() for p in theta) + used)
        assert row["meta_step_bytes"] == row["meta_parameter_bytes"] == 4 * sum(p.numel() for p in lam)
        assert row["base_parameter_bytes"] == 4 * sum(p.numel() for p in theta)
    assert rows[1]["base_step_bytes"] > rows[0]["base_step_bytes"]
    assert rows[1]["meta_step_bytes"] == rows[0]["meta_step_bytes"] < rows[2]["meta_step_bytes"]


def test_the_curves():
    settings = {"shape": SMALL, "all": 8, "each": 4, "repeats": 2, "steps": 1}
    rows = scaling.curve(settings, [1, 2], "gloo", "cpu")
    found = [(row["batch"], row["processes"], row["examples"], row["method"]) for row in rows]
    cells = [("all", 1, 8), ("all", 2, 4), ("each", 1, 4), ("each", 2, 4)]
    assert found == [(*cell, kind) for cell in cells for kind in ("plain", "sama")]
    for plain, sama in zip(rows[::2], rows[1::2], strict=True):
        assert plain["time_ratio"] == 1
        for row in (plain, sama):
            assert row["samples_per_second"] == pytest.approx(row["processes"] * row["examples"] / row["seconds"])
            parameters = sum(p.numel() for p in make_loop(SMALL, 1).base.parameters())
            assert row["peak_bytes"] > 4 * 4 * parameters  # θ, its gradient and two moments
    assert rows[0]["peak_bytes"] > rows[2]["peak_bytes"]  # eight examples a process, and four


def test_more_gpus_than_there_are_is_said(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert scaling.worlds_on("cpu") == [1, 2, 4]
    with pytest.raises(SamaError, match="no GPU was found"):
        scaling.worlds_on("cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert scaling.worlds_on("cuda") == [1, 2]
