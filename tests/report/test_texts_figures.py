"""The figures of an experiment on texts show the numbers that they are given."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from sama.report.style import to_svg
from sama.report.texts_figures import by_step, curves, measures
from sama.report.texts_style import looks

VALUES = {"majority_vote": [0.7, 0.72], "meta_r": [0.9, 0.8]}
LOOKS = looks(["majority_vote", "clean_only", "tapt", "meta_r"], "sama")


def lines(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """SVG id -> x and y of a line."""
    found = figure.axes[0].get_lines()
    return {
        str(line.get_gid()): (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in found
    }


def test_a_dot_a_seed_and_a_bar_at_the_mean():
    figure = measures(VALUES, LOOKS, "accuracy", "majority_vote")
    drawn = lines(figure)
    assert drawn["seeds-meta_r"][0] == [0.9, 0.8]
    assert drawn["mean-meta_r"][0] == [pytest.approx(0.85)]
    assert drawn["sd-meta_r"][0] == pytest.approx([0.85 - 0.0707107, 0.85 + 0.0707107])
    assert drawn["reference"][0][0] == pytest.approx(0.71)
    rows = [int(drawn[f"mean-{method}"][1][0]) for method in VALUES]
    assert [figure.axes[0].get_yticklabels()[row].get_text() for row in rows] == ["majority vote", "SAMA R"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top  # the first method stands above


def test_mean_and_spread_by_step_leave_out_lines_without_the_measure():
    frames = [
        {"step": np.array([10.0, 15.0, 20.0]), "v": np.array([0.4, np.nan, 0.6])},
        {"step": np.array([10.0, 20.0]), "v": np.array([0.6, 0.8])},
    ]
    steps, mean, sd = by_step(frames, "v")
    assert list(steps) == [10, 20]
    assert mean == pytest.approx([0.5, 0.7])
    assert sd == pytest.approx([np.std([0.4, 0.6], ddof=1)] * 2)


def test_a_panel_a_method_with_the_reference_in_the_others():
    frame = {"step": np.array([10.0, 20.0]), "v": np.array([0.5, 0.6])}
    figure = curves({method: [frame] for method in LOOKS}, LOOKS, "v", "accuracy", "majority_vote")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [look.label for look in LOOKS.values()]
    assert [len(axes.get_lines()) for axes in shown] == [1, 2, 2, 2]
    assert to_svg(figure) == to_svg(figure)
