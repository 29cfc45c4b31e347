"""Figures of what the methods cost: plain values in, a matplotlib figure out. The unit is one full training."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from sama.report.figures import mean_and_sd
from sama.report.style import INK, MUTED, PERCENT, Look, drawn, legend_below, looks, panels

ASIDE = 0.02  # of the width of a panel: how near two points may come
LOGARITHMIC = 8.0  # highest cost over lowest: of more, the axis is logarithmic
TICKS = [step * 10.0**power for power in range(-2, 4) for step in (1, 2, 5)]


@drawn
def search_cost(cost: Mapping[str, Sequence[float]]) -> Figure:
    """What each method's scores cost before any pruned training, in full trainings (mean; whisker ± 1 sd)."""
    figure, (axes,) = panels(7.6, 0.42 * len(cost))
    order = sorted(cost, key=lambda name: float(np.mean(cost[name])))
    look: dict[str, Look] = looks(order)
    for y, method in enumerate(order):
        mean, sd = mean_and_sd(np.array(cost[method])[:, None])
        whisker = sd[0] if sd[0] > 0.001 else None  # less would be a blot
        axes.barh(y, mean[0], xerr=whisker, color=look[method].colour, height=0.62, capsize=3)
        text = "0" if mean[0] == 0 else f"{mean[0]:.2f}"
        axes.annotate(text, (mean[0] + sd[0], y), (5, 0), textcoords="offset points", va="center")
    axes.axvline(1.0, color=MUTED, lw=1, ls=":")
    axes.set_yticks(range(len(order)), [look[method].label for method in order])
    axes.set_xlim(0, 1.15 * max(1.0, max(float(np.mean(values)) for values in cost.values())))
    axes.set_xlabel("search cost (1 = the examples passed in one full training)")
    axes.grid(axis="y", visible=False)
    return figure


@drawn
def cost_and_accuracy(
    cost: Mapping[str, Mapping[float, Sequence[float]]],
    accuracy: Mapping[str, Mapping[float, Sequence[float]]],
    full: Sequence[float],
    ratios: Sequence[float],
) -> Figure:
    """Test accuracy against the cost of search and retraining together, a panel a ratio (mean; whiskers ± 1 sd).

    Points of nearly the same cost stand side by side. The training on all examples, of cost 1, is a cross and a line.

    Args:
        cost: method -> ratio -> cost in full trainings, one value a seed.
        accuracy: method -> ratio -> test accuracy, one value a seed.
        full: test accuracy of the training on all examples, one value a seed.
        ratios: to be shown.
    """
    look = looks(list(cost))
    figure, drawn_on = panels(9.2 if len(ratios) > 1 else 6.4, 3.4, len(ratios), sharey=True)
    means = [float(np.mean(by_ratio[ratio])) for by_ratio in cost.values() for ratio in ratios if ratio in by_ratio]
    low, high = min(1.0, *means), max(1.0, *means)
    log = high > LOGARITHMIC * low
    level, sd = (float(value[0]) for value in mean_and_sd(np.array(full)[:, None]))
    for axes, ratio in zip(drawn_on, ratios, strict=True):
        _cost_axis(axes, low, high, log)
        axes.axhline(level, color=INK, ls=(0, (5, 3)), lw=1, zorder=1)
        axes.errorbar(1.0, level, sd, fmt="+", color=INK, markersize=9, markeredgewidth=1.8, elinewidth=1, capsize=3)
        here = [method for method in cost if ratio in cost[method]]
        x = aside(np.array([float(np.mean(cost[method][ratio])) for method in here]), axes)
        for method, place in zip(here, x, strict=True):
            _point(axes, look[method], place, cost[method][ratio], accuracy[method][ratio], f"point-{method}-{ratio}")
        axes.set(title=f"{100 * ratio:g} % pruned", xlabel="cost in full trainings")
        axes.yaxis.set_major_formatter(PERCENT)
    drawn_on[0].set_ylabel("test accuracy")
    handles = [
        Line2D([], [], ls="", marker=own.marker, color=own.colour, markerfacecolor=own.face, label=own.label)
        for own in look.values()
    ]
    handles.append(Line2D([], [], ls=(0, (5, 3)), lw=1, marker="+", markersize=9, color=INK, label="nothing pruned"))
    legend_below(figure, handles, [str(handle.get_label()) for handle in handles], columns=5 if len(ratios) > 1 else 3)
    return figure


def _cost_axis(axes: Axes, low: float, high: float, log: bool) -> None:
    if log:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.25, high * 1.25)
        ticks = [value for value in TICKS if low / 1.25 <= value <= high * 1.25]
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.set_xticks([], minor=True)
    else:
        room = 0.08 * max(high - low, 0.5)
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def aside(x: NDArray[np.float64], axes: Axes) -> NDArray[np.float64]:
    """`x` in data coordinates, moved apart to at least `ASIDE` of the axes' width; order and mean stay."""
    from sklearn.isotonic import isotonic_regression  # half a second that other figures do not wait for

    to_axes = axes.transData + axes.transAxes.inverted()
    wanted = to_axes.transform(np.column_stack([x, np.full(len(x), axes.get_ylim()[0])]))[:, 0]
    order = np.argsort(wanted, kind="stable")
    steps = ASIDE * np.arange(len(x))
    placed = isotonic_regression(wanted[order] - steps) + steps
    moved = to_axes.inverted().transform(np.column_stack([placed, np.zeros(len(x))]))[:, 0]
    found = np.empty(len(x))
    found[order] = moved
    return found


def _point(axes: Axes, look: Look, x: float, cost: Sequence[float], accuracy: Sequence[float], gid: str) -> None:
    (_, across), (mean, up) = (mean_and_sd(np.array(values)) for values in (cost, accuracy))
    bars = axes.errorbar(
        x,
        float(mean),
        yerr=float(up),
        xerr=float(across) if across > 0.005 else None,
        fmt=look.marker,
        color=look.colour,
        markerfacecolor=look.face,
        elinewidth=0.9,
        capsize=2,
        zorder=3,
    )
    bars[0].set_gid(gid)
