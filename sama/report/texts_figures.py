"""Figures of an experiment on texts: plain values in, a matplotlib figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sama.report.figures import mean_and_sd
from sama.report.reading import Metrics
from sama.report.style import INK, MUTED, PERCENT, Look, drawn

COLUMNS = 3  # of the learning curves


@drawn
def measures(measured: Mapping[str, Sequence[float]], looks: Mapping[str, Look], name: str, reference: str) -> Figure:
    """The measure on test: a row a method, a dot a seed, a bar at the mean with whiskers of ± 1 sd.

    Args:
        measured: method -> measure, one value a seed.
        looks: method -> its look.
        name: of the measure.
        reference: method whose mean is drawn as a level.
    """
    height = 0.42 * len(measured) + 0.25
    figure = Figure(figsize=(7.2, height + 0.6))
    axes = figure.subplots(gridspec_kw={"left": 0.31, "right": 0.98, "bottom": 0.5 / (height + 0.6), "top": 0.98})
    axes.axvline(float(np.mean(measured[reference])), color=MUTED, lw=1, ls=(0, (5, 3)), zorder=1, gid="reference")
    for row, (method, values) in enumerate(measured.items()):
        look = looks[method]
        (mean,), (sd,) = mean_and_sd(np.array(values)[:, None])
        axes.plot([mean - sd, mean + sd], [row, row], color=look.colour, lw=1.4, gid=f"sd-{method}")
        axes.plot([mean], [row], marker="|", markersize=17, markeredgewidth=2.4, color=INK, gid=f"mean-{method}")
        dots: dict[str, Any] = {"color": look.colour, "markerfacecolor": look.face, "marker": look.marker}
        apart = np.linspace(-0.14, 0.14, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, row + apart, ls="", alpha=0.85, gid=f"seeds-{method}", **dots)
    axes.set_yticks(range(len(measured)), [looks[method].label for method in measured])
    axes.set_ylim(len(measured) - 0.45, -0.55)
    axes.set_xlabel(f"{name} on the test split")
    axes.xaxis.set_major_formatter(PERCENT)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    return figure


@drawn
def curves(
    runs: Mapping[str, Sequence[Metrics]], looks: Mapping[str, Look], column: str, name: str, reference: str
) -> Figure:
    """Validation measure by step, a panel a method: mean and band of ± 1 sd, a thin line a seed, the reference in grey.

    Args:
        runs: method -> metrics, one entry a seed.
        looks: method -> its look.
        column: of the measure in the metrics.
        name: of the measure.
        reference: method whose mean stands in every panel.
    """
    rows = -(-len(runs) // COLUMNS)
    columns = min(COLUMNS, len(runs))
    figure = Figure(figsize=(3.1 * columns, 2.1 * rows + 0.4))
    height = 2.1 * rows + 0.4
    grid = {"left": 0.7 / (3.1 * columns), "right": 0.99, "bottom": 0.5 / height, "top": 1 - 0.3 / height}
    axes = figure.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False, gridspec_kw={**grid, "hspace": 0.32, "wspace": 0.1}
    )
    panels = list(axes.flat)
    level = by_step(runs[reference], column)
    for panel, (method, frames) in zip(panels, runs.items(), strict=False):
        _panel(panel, frames, looks[method], column, method, level if method != reference else None)
    for panel in panels[len(runs) :]:
        panel.set_visible(False)
    for place, panel in enumerate(panels[: len(runs)]):
        if place % columns == 0:
            panel.set_ylabel(f"validation {name}")
        if place + columns >= len(runs):
            panel.set_xlabel("optimizer step")
            panel.tick_params(labelbottom=True)
    return figure


def _panel(
    axes: Axes,
    frames: Sequence[Metrics],
    look: Look,
    column: str,
    method: str,
    level: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]] | None,
) -> None:
    if level is not None:
        axes.plot(level[0], level[1], color=MUTED, lw=1.1, ls=(0, (5, 3)))
    for frame in frames if len(frames) > 1 else ():
        seen = ~np.isnan(frame[column])
        axes.plot(frame["step"][seen], frame[column][seen], color=look.colour, lw=0.6, alpha=0.45)
    steps, mean, sd = by_step(frames, column)
    axes.fill_between(steps, mean - sd, mean + sd, color=look.colour, alpha=0.17, lw=0, gid=f"band-{method}")
    axes.plot(steps, mean, color=look.colour, gid=f"curve-{method}")
    axes.set_title(look.label)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def by_step(
    frames: Sequence[Metrics], column: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps, and mean and sd over the seeds of `column` at each."""
    steps = np.concatenate([frame["step"] for frame in frames])
    values = np.concatenate([frame[column] for frame in frames])
    seen = ~np.isnan(values)
    at = np.unique(steps[seen])
    pairs = [mean_and_sd(values[seen & (steps == step)]) for step in at]
    mean, sd = (np.array(part, dtype=np.float64) for part in zip(*pairs, strict=True))
    return at, mean, sd
