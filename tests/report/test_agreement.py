"""Rank correlation and shared kept lists: against pandas, by hand, and as they are drawn."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from sama.report import heat_maps
from sama.report.agreement import by_likeness, least_shared, pairs, rank_correlation, shared_fraction, spaced
from sama.scores import SCORES


def test_rank_correlation_is_spearmans_with_ties_and_without_a_meaning_for_a_constant():
    rng = np.random.default_rng(0)
    scores = [rng.random(200), rng.integers(0, 4, 200).astype(float), np.arange(200.0) ** 3, -np.arange(200.0)]
    found = rank_correlation([*scores, np.ones(200)])
    np.testing.assert_allclose(found[:4, :4], pd.DataFrame(np.array(scores).T).corr("spearman"), atol=1e-12)
    assert found[2, 3] == pytest.approx(-1.0)
    assert np.isnan(found[4]).all()


def test_shared_fraction_by_hand():
    kept = {"a": np.array([1, 1, 0, 0], dtype=bool), "c": np.array([1, 0, 1, 1], dtype=bool)}
    found = shared_fraction(kept, ["a", "b", "c"])
    assert found[0, 2] == found[2, 0] == pytest.approx(1 / 2.5)  # one of two and of three
    assert found[0, 0] == found[2, 2] == 1.0
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.7])
def test_random_lists_share_the_kept_fraction_and_opposed_ones_the_least_possible(fraction):
    rng, n = np.random.default_rng(1), 20_000
    score = rng.random((3, n))
    masks = {str(i): score[i] >= np.quantile(score[i], 1 - fraction) for i in range(3)}
    masks["opposed"] = score[0] <= np.quantile(score[0], fraction)
    found = shared_fraction(masks, list(masks))
    np.testing.assert_allclose(found[np.triu_indices(3, 1)], fraction, atol=0.02)
    assert found[0, 3] == pytest.approx(least_shared(fraction), abs=1e-3)


def test_like_methods_stand_together_with_the_first_in_front():
    group = np.array([0, 1, 0, 1, 0, 1])
    correlation = np.where(group[:, None] == group, 0.9, -0.5)
    np.fill_diagonal(correlation, 1.0)
    order = by_likeness(correlation)
    assert sorted(order) == list(range(6))
    assert group[order].tolist() == [0, 0, 0, 1, 1, 1]
    correlation[3] = correlation[:, 3] = np.nan  # a constant score has a place too
    assert sorted(by_likeness(correlation)) == list(range(6))
    assert by_likeness(np.ones((2, 2))) == [0, 1]


def test_pairs_are_sorted_and_leave_out_what_is_not_known():
    values = np.array([[1.0, 0.2, np.nan], [0.2, 1.0, -0.3], [np.nan, -0.3, 1.0]])
    assert pairs(["a", "b", "c"], values) == [(-0.3, "b", "c"), (0.2, "a", "b")]


def test_spaced_keeps_the_ends():
    assert spaced([0.1, 0.3, 0.5, 0.7, 0.9]) == [0.1, 0.5, 0.9]
    assert spaced([0.3, 0.5]) == [0.3, 0.5]
    assert spaced([0.3]) == [0.3]


def cells(figure):
    return {
        str(patch.get_gid()).removeprefix("pair-"): patch
        for patch in figure.findobj(Rectangle)
        if str(patch.get_gid()).startswith("pair-")
    }


def numbers(axes):
    return {(int(t.get_position()[0]), int(t.get_position()[1])): t.get_text() for t in axes.texts}


def test_each_pair_has_its_number_once():
    values = np.array([[1.0, 0.25, np.nan], [0.25, 1.0, -0.004], [np.nan, -0.004, 1.0]])
    figure = heat_maps.rank_correlation(["margin", "el2n", "random"], values)
    assert set(cells(figure)) == {"margin-el2n", "margin-random", "el2n-random"}
    assert numbers(figure.axes[0]) == {(0, 0): "0.25", (0, 1): "–", (1, 1): "0.00"}  # column, row
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["EL2N", "random"]


def test_what_chance_gives_is_white_at_every_ratio():
    values = np.array([[1.0, 0.7, 0.9], [0.7, 1.0, 0.6], [0.9, 0.6, 1.0]])
    figure = heat_maps.shared(["margin", "el2n", "random"], {0.3: (values, 0.7), 0.4: (values, 0.6)})
    first, second = (
        {str(patch.get_gid()).removeprefix("pair-"): np.array(to_rgb(patch.get_facecolor())) for patch in axes.patches}  # type: ignore[arg-type]
        for axes in figure.axes
    )
    assert first["margin-el2n"].min() > 0.95
    assert second["el2n-random"].min() > 0.95
    for panel in (first, second):
        assert panel["margin-random"][2] > panel["margin-random"][0]  # blue: more than chance
    assert first["el2n-random"][0] > first["el2n-random"][2]  # red: less


def test_names_of_one_panel_end_above_the_next_one():
    values = np.full((len(SCORES), len(SCORES)), 0.5)
    figure = heat_maps.shared(list(SCORES), {0.3: (values, 0.7), 0.5: (values, 0.5)})
    FigureCanvasAgg(figure).draw()
    upper, lower = figure.axes
    assert min(t.get_window_extent().y0 for t in upper.get_xticklabels()) > lower.title.get_window_extent().y1


def test_all_scores_have_room_for_names_and_numbers():
    rng = np.random.default_rng(0)
    figure = heat_maps.rank_correlation(list(SCORES), rng.uniform(-1, 1, (len(SCORES), len(SCORES))))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    rows = sorted((box.y0, box.y1) for box in (t.get_window_extent() for t in axes.get_yticklabels()))
    assert all(low[1] <= high[0] for low, high in pairwise(rows))
    width = axes.get_window_extent().width / (len(SCORES) - 1)
    inside = [t for t in axes.texts if isinstance(t, Text) and t.get_text()]
    assert len(inside) == len(SCORES) * (len(SCORES) - 1) / 2
    assert max(t.get_window_extent().width for t in inside) < width
