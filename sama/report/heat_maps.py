"""Heat maps of one number a pair of methods: plain values in, a matplotlib figure out. Each cell has its number."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from sama.report.agreement import least_shared
from sama.report.style import INK, MUTED, drawn, looks, signed

CELL, LEAST = (0.4, 0.27), (1.9, 1.3)  # inches: a cell where there are many methods, and a triangle of few
HEAD, LETTER = 0.38, 0.078  # inches: over a triangle, and a letter of a name
PAGE = (6.4, 9.6)  # inches: narrowest and widest figure
COLOURS = colormaps["RdBu"]


@drawn
def rank_correlation(methods: Sequence[str], values: NDArray[np.float64]) -> Figure:
    """Spearman's ρ of each pair of methods, in their order. values: [m, m] in [-1, 1]; NaN: not defined."""
    figure, (axes,) = _triangles(methods, 1)
    _triangle(axes, methods, values, Normalize(-1, 1), digits=2)
    axes.set_title("Rank correlation of the scores (Spearman)")
    return figure


@drawn
def shared(methods: Sequence[str], by_ratio: Mapping[float, tuple[NDArray[np.float64], float]]) -> Figure:
    """Share of the kept list that each pair of methods has in common, in per cent, a panel a ratio.

    White is what random lists share; red is less, blue is more.

    Args:
        methods: in the order to be drawn.
        by_ratio: ratio -> shares [m, m], and the fraction that is kept.
    """
    figure, panels = _triangles(methods, len(by_ratio))
    for axes, (ratio, (values, fraction)) in zip(panels, by_ratio.items(), strict=True):
        lowest = min(least_shared(fraction), fraction - 0.01)
        norm = TwoSlopeNorm(100 * fraction, 100 * lowest, 100)
        _triangle(axes, methods, 100 * values, norm, digits=0)
        axes.set_title(f"{100 * ratio:g} % pruned (by chance: {100 * fraction:.0f})")
    return figure


def _triangles(methods: Sequence[str], panels: int) -> tuple[Figure, list[Axes]]:
    """Axes of fixed size for a triangle each, in as many columns as a page has room for."""
    cells = len(methods) - 1
    longest = LETTER * max(len(look.label) for look in looks(methods).values())
    names, foot = 0.15 + longest, 0.3 + 0.65 * longest  # names below stand at 40 degrees
    wide, high = max(cells * CELL[0], LEAST[0]), max(cells * CELL[1], LEAST[1])
    columns = max(1, min(panels, int(PAGE[1] / (names + wide))))
    used, step = columns * (names + wide), HEAD + high + foot
    width, height = max(used, PAGE[0]), -(-panels // columns) * step
    figure = Figure(figsize=(width, height))
    figure.add_artist(Rectangle((0, 0), 1, 1, color="white", lw=0, zorder=-2))  # few methods: no smaller picture
    drawn_on = []
    for panel in range(panels):
        row, column = divmod(panel, columns)
        left, bottom = (width - used) / 2 + column * (names + wide) + names, height - (row + 1) * step + foot
        drawn_on.append(figure.add_axes((left / width, bottom / height, wide / width, high / height)))
    return figure, drawn_on


def _triangle(axes: Axes, methods: Sequence[str], values: NDArray[np.float64], norm: Normalize, digits: int) -> None:
    names = [look.label for look in looks(methods).values()]
    cells = len(methods) - 1
    for row in range(cells):  # row: method row + 1, column: the methods before it
        for column in range(row + 1):
            value = values[row + 1, column]
            known = not np.isnan(value)
            red, green, blue, _ = COLOURS(norm(value)) if known else (0.93, 0.93, 0.93, 1.0)
            gid = f"pair-{methods[column]}-{methods[row + 1]}"
            axes.add_patch(
                Rectangle((column, row), 1, 1, facecolor=(red, green, blue), edgecolor="white", lw=1, gid=gid)
            )
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = signed(value, digits) if known else "–"
            ink = "white" if dark else INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center_baseline", fontsize=7.5, color=ink)
    axes.set(xlim=(0, cells), ylim=(cells, 0))
    axes.set_xticks(np.arange(cells) + 0.5, names[:-1], rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(cells) + 0.5, names[1:])
    axes.tick_params(length=0, labelcolor=INK, color=MUTED)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
