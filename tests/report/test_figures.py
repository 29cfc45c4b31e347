"""Figures: what they draw is what they were given, and the same input gives the same SVG."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import BboxBase
from sklearn.metrics import auc, roc_auc_score

from sama.report import cost_figures, figures, heat_maps, style, weight_figures
from sama.report.reading import Weights
from sama.scores import SCORES

PRUNED = {
    "meta_weight": {0.3: [0.97, 0.98, 0.96], 0.5: [0.95, 0.96, 0.97]},
    "random": {0.3: [0.8, 0.7, 0.75], 0.5: [0.7, 0.72, 0.77]},
}
REFERENCES = {"full": [0.8, 0.81, 0.79], "clean": [0.99, 0.98, 0.99], "meta": [0.95, 0.9, 0.94]}


def parts(figure: Figure, prefix: str) -> dict[str, Artist]:
    found = figure.findobj(lambda artist: (artist.get_gid() or "").startswith(prefix))
    return {str(artist.get_gid()).removeprefix(prefix): artist for artist in found}


def lines(figure: Figure, prefix: str = "line-") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {
        name: (np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float))
        for name, line in parts(figure, prefix).items()
        if isinstance(line, Line2D)
    }


def texts(svg: str) -> list[str]:
    """Strings of an SVG whose text is drawn as paths: matplotlib leaves each one in a comment."""
    return re.findall(r"<!-- (.*?) -->", svg)


def boxes(figure: Figure, *strings: str) -> Iterator[tuple[str, BboxBase]]:
    FigureCanvasAgg(figure).draw()
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_text() in strings and text.get_visible():
            yield text.get_text(), text.get_window_extent()


def planted(n: int = 300, seeds: int = 3, separation: float = 1.0) -> list[tuple[np.ndarray, np.ndarray]]:
    rngs = [np.random.default_rng(seed) for seed in range(seeds)]
    wrongs = [rng.random(n) < 0.3 for rng in rngs]
    return [(wrong, rng.standard_normal(n) + separation * wrong) for rng, wrong in zip(rngs, wrongs, strict=True)]


def weights(n: int = 200, seed: int = 0, known: bool = True) -> Weights:
    rng = np.random.default_rng(seed)
    return Weights(rng.random(n), rng.gamma(2, size=n), rng.gamma(2, size=n), rng.random(n) < 0.3 if known else None)


def test_accuracy_draws_means_and_one_sd():
    figure = figures.accuracy(PRUNED, REFERENCES)
    drawn = lines(figure)
    bands = parts(figure, "band-")
    assert set(drawn) == set(bands) == set(PRUNED)
    for method, by_ratio in PRUNED.items():
        values = np.array(list(by_ratio.values()))
        mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
        np.testing.assert_allclose(drawn[method], ([30, 50], mean))
        band = bands[method]
        assert isinstance(band, PolyCollection)
        heights = sorted({round(float(y), 9) for x, y in np.asarray(band.get_paths()[0].vertices) if round(x) == 30})
        np.testing.assert_allclose(heights, [mean[0] - sd[0], mean[0] + sd[0]])
    levels = lines(figure, "reference-")
    assert {name: y[0] for name, (_, y) in levels.items()} == pytest.approx(
        {name: np.mean(values) for name, values in REFERENCES.items()}
    )


def test_accuracy_names_methods_references_and_axes():
    written = texts(style.to_svg(figures.accuracy(PRUNED, REFERENCES)))
    for name in ("meta weight", "random", "all observed labels", "all clean labels (upper bound)", "test accuracy"):
        assert name in written
    assert "meta-trained model" not in texts(style.to_svg(figures.accuracy(PRUNED, {"full": [0.8]})))


def test_one_ratio_is_drawn_as_points_with_whiskers_side_by_side():
    figure = figures.accuracy({method: {0.3: by_ratio[0.3]} for method, by_ratio in PRUNED.items()}, {})
    drawn = lines(figure)
    assert set(parts(figure, "band-")) == set(PRUNED)
    assert drawn["meta_weight"][0] != drawn["random"][0]
    assert "30 %" in texts(style.to_svg(figure))


def test_end_labels_never_overlap():
    names = [look.label for look in style.looks(list(SCORES)).values()]
    figure = figures.accuracy({name: {0.3: [0.9], 0.5: [0.9 + i / 1e4]} for i, name in enumerate(SCORES)}, REFERENCES)
    wanted = [*names, "all observed labels", "all clean labels (upper bound)", "meta-trained model"]
    found = sorted((box.y0, box.y1) for _, box in boxes(figure, *wanted))
    assert len(found) == len(wanted)
    assert all(lower[1] <= upper[0] + 0.5 for lower, upper in pairwise(found))


def test_one_colour_a_method_in_all_figures():
    accuracy = figures.accuracy(PRUNED, {})
    found = figures.detection({"random": planted(), "meta_weight": planted()}, {"random": "r", "meta_weight": "m"})
    for method in PRUNED:
        drawn = [parts(accuracy, "line-"), parts(found, "roc-"), parts(found, "precision-")]
        assert {line[method].get_color() for line in drawn} == {style.looks([method])[method].colour}  # type: ignore[attr-defined]


def test_every_registered_score_has_a_look_of_its_own():
    assert set(style._LOOKS) == set(SCORES)
    found = style.looks(list(SCORES))
    assert len({look.colour for look in found.values()}) == len(SCORES)
    assert len({(look.marker, look.hollow) for look in found.values()}) == len(SCORES)  # apart without colours too
    assert len({look.label for look in found.values()}) == len(SCORES)
    assert style.looks(list(SCORES)[::-1]) == found


def test_a_method_of_another_release_borrows_a_look_that_is_free():
    names = ["meta_weight", "random", "el2n", "margin", "a", "b", "c_d"]
    found = style.looks(names)
    assert len({look.colour for look in found.values()}) == len(names)
    assert found["c_d"].label == "c d"
    assert style.looks(names[::-1]) == found


def test_many_methods_have_whiskers_side_by_side():
    pruned = {method: {0.3: [0.9, 0.8], 0.5: [0.7, 0.5]} for method in SCORES}
    figure = figures.accuracy(pruned, {})
    starts = sorted(x[0] for x, _ in lines(figure).values())
    assert len(set(starts)) == len(SCORES)
    assert 20 < starts[0] < starts[-1] < 40  # nearer to their own ratio than to the next
    bars = parts(figure, "band-")["aum"]
    assert isinstance(bars, LineCollection)
    heights = [np.asarray(segment)[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(
        heights, [[0.85 - 0.05 * 2**0.5, 0.85 + 0.05 * 2**0.5], [0.6 - 0.1 * 2**0.5, 0.6 + 0.1 * 2**0.5]]
    )


def test_roc_encloses_the_auc():
    pairs = planted()
    x, y = lines(figures.detection({"margin": pairs}, {"margin": "margin"}), "roc-")["margin"]
    expected = np.mean([roc_auc_score(*pair) for pair in pairs])
    assert auc(x, y) == pytest.approx(expected, abs=0.005)


def test_precision_by_hand():
    wrong = np.array([True, False, True, False])  # ranked: wrong, right, wrong, right
    precision = figures._precision(wrong, np.array([4.0, 3.0, 2.0, 1.0]))
    by_recall = dict(zip(figures.GRID.round(3), precision, strict=True))
    assert by_recall[0.25] == by_recall[0.5] == 1.0
    assert by_recall[0.505] == by_recall[1.0] == pytest.approx(2 / 3)


def test_detection_legend_does_not_cover_the_curves():
    methods = [f"method {i}" for i in range(13)]
    figure = figures.detection({name: planted(50) for name in methods}, {name: f"{name}: AUC" for name in methods})
    FigureCanvasAgg(figure).draw()
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        below = axes.get_tightbbox()
        assert below is not None
        assert legend.y1 <= below.y0 + 1
        assert axes.get_window_extent().height > 150


def test_learning_curves_average_what_each_step_has():
    runs = [
        {"step": np.array([1.0, 2.0]), "validation/accuracy": np.array([0.2, value])} for value in (0.4, 0.6, np.nan)
    ]
    figure = figures.learning_curves([], {"full": runs, "random": runs[:1], "meta": [{"step": np.ones(1)}]}, 0.7)
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_label() == "all observed labels")
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), [0.2, 0.5])
    assert all(line.get_label() != "meta-trained model" for line in axes.lines)
    written = texts(style.to_svg(figure))
    assert "pruned: random" in written
    assert "always right, on these labels" in written


def test_search_cost_shows_nothing_for_nothing():
    figure = cost_figures.search_cost({"random": [0.0, 0.0], "el2n": [0.7, 0.9]})
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx([0.0, 0.8])  # type: ignore[attr-defined]
    written = texts(style.to_svg(figure))
    assert "0" in written
    assert "0.80" in written


COST = {"meta_weight": {0.3: [3.0, 5.0], 0.5: [4.0, 4.0]}, "random": {0.3: [1.0, 1.0], 0.5: [1.0, 1.0]}}
TWO = {method: {ratio: values[:2] for ratio, values in by_ratio.items()} for method, by_ratio in PRUNED.items()}


def test_cost_and_accuracy_has_a_point_a_method_and_ratio():
    figure = cost_figures.cost_and_accuracy(COST, TWO, [0.8, 0.82], [0.3, 0.5])
    points = {name: (float(x[0]), float(y[0])) for name, (x, y) in lines(figure, "point-").items()}
    assert points == {
        f"{method}-{ratio}": pytest.approx((np.mean(cost), np.mean(TWO[method][ratio])))
        for method, by_ratio in COST.items()
        for ratio, cost in by_ratio.items()
    }
    levels = [line.get_ydata() for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose([np.asarray(level, dtype=float)[0] for level in levels], [0.81, 0.81])
    assert {"nothing pruned", "30 % pruned"} <= set(texts(style.to_svg(figure)))


def test_points_of_one_cost_stand_side_by_side():
    (axes,) = figures.accuracy({"random": {0.3: [0.5]}}, {}).axes
    axes.set_xlim(0, 10)
    placed = cost_figures.aside(np.array([2.0, 8.0, 2.0, 2.0]), axes)
    gap = 10 * cost_figures.ASIDE
    np.testing.assert_allclose(placed, [2 - gap, 8, 2, 2 + gap])


def test_a_very_dear_score_makes_the_axis_logarithmic():
    dear = {**COST, "meta_weight": {0.3: [30.0, 30.0], 0.5: [30.0, 30.0]}}
    for cost, scale in ((COST, "linear"), (dear, "log")):
        figure = cost_figures.cost_and_accuracy(cost, TWO, [0.8, 0.82], [0.3])
        assert figure.axes[0].get_xscale() == scale
        low, high = figure.axes[0].get_xlim()
        assert low < 1
        assert high > np.mean(cost["meta_weight"][0.3])


def test_weights_are_split_where_the_truth_is_known():
    svg = style.to_svg(weight_figures.weights([weights(), weights(seed=1)]))
    assert {"clean label", "mislabelled"} <= set(texts(svg))
    figure = weight_figures.weights([weights(known=False)])
    assert set(parts(figure, "ecdf-")) == {"all examples"}


def test_weights_without_a_wrong_label_are_one_distribution():
    known = Weights(np.random.default_rng(0).random(9), np.ones(9), np.ones(9), np.zeros(9, dtype=bool))
    assert set(parts(weight_figures.weights([known]), "ecdf-")) == {"all examples"}


def test_weights_that_are_all_equal_are_drawn():
    flat = Weights(np.full(9, 0.5), np.ones(9), np.ones(9), np.arange(9) > 5)
    figure = weight_figures.weights([flat])
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_height() > 0]
    assert bars
    assert min(bar.get_width() for bar in bars) > 0.01


def tiles(count: int, observed: str = "a", clean: str | None = "a", channels: int = 1, size: int = 8):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (channels, size, size), dtype=np.uint8)
    return [weight_figures.Tile(image, observed, clean, 0.5)] * count


def test_wrong_labels_are_framed_and_named():
    svg = style.to_svg(weight_figures.images(tiles(5, "cat", "dog"), tiles(5, "cat", "cat")))
    assert svg.count('id="wrong-label"') == 5
    assert texts(svg).count("cat") == 10
    assert texts(svg).count("true: dog") == 5


def test_unknown_clean_labels_are_never_framed():
    svg = style.to_svg(weight_figures.images(tiles(5, clean=None), tiles(5, clean=None)))
    assert "wrong-label" not in svg


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (3, 224)])
def test_long_class_names_fit_their_image(channels, size):
    name, true = "a_very_long_class_name_17", "another_very_long_class_name"
    figure = weight_figures.images(tiles(24, name, true, channels, size), tiles(24, name, name, channels, size))
    FigureCanvasAgg(figure).draw()
    titles = [axes.title for axes in figure.axes]
    extents = sorted((box.y0, box.x0, box.x1) for box in (title.get_window_extent() for title in titles))
    for row in range(0, len(extents), 8):
        across = sorted(extents[row : row + 8], key=lambda extent: extent[1])
        assert all(left[2] < right[1] for left, right in pairwise(across))


def test_large_images_do_not_bloat_the_grid():
    svg = style.to_svg(weight_figures.images(tiles(8, size=1024), tiles(8, size=1024)))
    assert len(svg) < 1_000_000


def test_scatter_draws_a_part_of_very_many():
    figure = weight_figures.scatter(weights(weight_figures.MAX_POINTS + 5))
    offsets = [len(np.asarray(collection.get_offsets())) for axes in figure.axes for collection in axes.collections]
    assert offsets == [weight_figures.MAX_POINTS] * 2


def test_scatter_has_no_panel_for_what_was_not_measured():
    seen = weights(50, known=False)
    alone = replace(seen, uncertainty=None)
    (axes,) = weight_figures.scatter(alone).axes
    assert axes.get_xlabel() == weight_figures.LOSS
    both = weight_figures.scatter(alone.beside(seen))
    drawn = np.asarray(both.axes[1].collections[0].get_offsets())[:, 0]
    assert seen.uncertainty is not None
    np.testing.assert_allclose(np.sort(drawn), np.sort(seen.uncertainty))
    assert not both.legends  # clean labels are not known


def test_scatter_colours_follow_the_truth():
    shown = weights(50)
    figure = weight_figures.scatter(shown)
    points = figure.axes[0].collections[0]
    red = matplotlib.colors.to_rgb(style.MISLABELLED)
    drawn = {
        (round(float(x), 6), round(float(y), 6)): np.allclose(colour[:3], red)
        for (x, y), colour in zip(np.asarray(points.get_offsets()), np.asarray(points.get_facecolor()), strict=True)
    }
    assert shown.wrong is not None
    assert shown.loss is not None
    assert drawn == {
        (round(float(x), 6), round(float(y), 6)): bool(wrong)
        for x, y, wrong in zip(shown.loss, shown.relative, shown.wrong, strict=True)
    }


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.accuracy(PRUNED, REFERENCES),
        lambda: figures.detection({"margin": planted()}, {"margin": "margin"}),
        lambda: weight_figures.scatter(weights()),
        lambda: weight_figures.images(tiles(4), tiles(4)),
        lambda: cost_figures.cost_and_accuracy(COST, TWO, [0.8], [0.3, 0.5]),
        lambda: heat_maps.shared(["random", "el2n", "dual"], {0.5: (np.full((3, 3), 0.4), 0.5)}),
    ],
)
def test_same_input_same_svg_whatever_the_users_style(draw):
    first = style.to_svg(draw())
    with matplotlib.rc_context(
        {"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None, "font.family": "serif"}
    ):
        assert style.to_svg(draw()) == first
    assert "<dc:date>" not in first
