"""Figures of what benchmarks wrote: rows in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.iteration import PLAIN
from sama.report.style import INK, MUTED, Look, drawn, legend_below, panels

Row = Mapping[str, Any]

LOOKS = {
    PLAIN: Look("plain", INK, "s"),
    "plain, math attention": Look("plain, math attention", MUTED, "s", (0, (1.2, 1.2)), hollow=True),
    "sama": Look("SAMA", "#0072b2", "o"),
    "sama, one-sided": Look("SAMA, one-sided", "#56b4e9", "o", (0, (5, 1.6)), hollow=True),
    "sama, forward mode": Look("SAMA, forward mode", "#332288", "D", (0, (6, 1.5, 1.2, 1.5))),
    "sama_na": Look("SAMA-NA", "#009e73", "v", (0, (5, 1.6))),
    "darts": Look("DARTS", "#e69f00", "^"),
    "neumann, 3 iterations": Look("Neumann, 3 iterations", "#d55e00", "P"),
    "cg, 3 iterations": Look("CG, 3 iterations", "#cc79a7", "X"),
    "itd, 1 step": Look("ITD, 1 step", "#7cae2b", "*", (0, (6, 1.5, 1.2, 1.5))),
}
OTHER = Look("", MUTED, "o")


def look(method: str) -> Look:
    """Label and colours of a method."""
    return LOOKS.get(method) or Look(method, OTHER.colour, OTHER.marker)


@drawn
def ratios(rows: Sequence[Row]) -> Figure:
    """Time and peak memory of the methods at one cell, in plain training's; diamonds: what the operations say.

    Args:
        rows: measured ones of a cell, plain training among them.
    """
    shown = [row for row in rows if row["method"] != PLAIN and row["time_ratio"] is not None][::-1]
    figure, (left, right) = panels(9.2, 0.4 * len(shown) + 0.4, 2, sharey=True)
    for y, row in enumerate(shown):
        own = look(row["method"])
        value, low, high = row["time_ratio"], row["time_ratio_q1"], row["time_ratio_q3"]
        left.barh(y, value, xerr=[[value - low], [high - value]], color=own.colour, height=0.62, capsize=3)
        left.plot(row["flops_ratio"], y, marker="D", color="white", markeredgecolor=INK, ls="", markersize=6)
        right.barh(y, row["memory_ratio"], color=own.colour, height=0.62)
        for axes, number, end in (
            (left, value, max(high, row["flops_ratio"])),
            (right, row["memory_ratio"], row["memory_ratio"]),
        ):
            axes.annotate(f"{number:.2f}", (end, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
    left.set_yticks(range(len(shown)), [look(row["method"]).label for row in shown])
    for axes, title in ((left, "Time"), (right, "Peak memory")):
        axes.set(title=title, xlabel="in multiples of plain training's")
        axes.axvline(1.0, color=MUTED, lw=1, ls=":")
        axes.set_xlim(0, 1.18 * axes.get_xlim()[1])
        axes.grid(axis="y", visible=False)
    return figure


@drawn
def growth(panels_of: Sequence[tuple[str, Sequence[Row], str]], value: str, label: str) -> Figure:
    """A line a method, a panel a variable.

    Args:
        panels_of: (column, rows, label of the axis) a panel.
        value: column to draw, bytes as MB. label: of it.
    """
    scale = 1e6 if value.endswith("_bytes") else 1.0
    figure, drawn_on = panels(3.4 * len(panels_of) + 0.6, 3.3, len(panels_of), sharey=True)
    handles: dict[str, Any] = {}
    for axes, (column, rows, text) in zip(drawn_on, panels_of, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            own = look(method)
            points = sorted((row[column], row[value] / scale) for row in rows if row["method"] == method)
            (handles[method],) = axes.plot(
                *zip(*points, strict=True),
                color=own.colour,
                marker=own.marker,
                markerfacecolor=own.face,
                ls=own.dashes,
                label=own.label,
                gid=f"line-{column}-{method}",
            )
        _logarithmic(axes, sorted({row[column] for row in rows}), text)
    drawn_on[0].set_ylabel(label)
    legend_below(figure, list(handles.values()), [look(method).label for method in handles], columns=3)
    return figure


def _logarithmic(axes: Axes, values: Sequence[float], text: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values, [f"{value / 1e6:.2g} M" if value >= 1e5 else f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)
    for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        which(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "125" else ""))
    axes.set_xlabel(text)
