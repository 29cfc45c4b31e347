"""Figures that compare methods, one function each: plain values in, a matplotlib figure out.

Parts that a test wants to find carry an SVG id (`band-METHOD`, `line-METHOD`, …).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from sama.report.reading import Metrics
from sama.report.style import CLEAN, INK, MANY, META_TRAINED, MUTED, PERCENT, drawn, legend_below, looks, panels

REFERENCES = {  # name -> label, colour, dashes
    "clean": ("all clean labels (upper bound)", INK, (0, (1, 1.5))),
    "meta": ("meta-trained model", META_TRAINED, (0, (6, 2, 1, 2))),
    "full": ("all observed labels", INK, (0, (5, 3))),
}
GRID = np.linspace(0.0, 1.0, 201)


def mean_and_sd(values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample sd over the first axis (seeds); sd is 0 for one seed. values: [seeds, points]."""
    array = np.asarray(values, dtype=np.float64)
    return array.mean(axis=0), array.std(axis=0, ddof=1) if len(array) > 1 else np.zeros(array.shape[1:])


@drawn
def accuracy(
    pruned: Mapping[str, Mapping[float, Sequence[float]]], references: Mapping[str, Sequence[float]]
) -> Figure:
    """Test accuracy against pruning ratio: a line and a band (± 1 sd over seeds) a method, references as levels.

    Many methods, or a single ratio: whiskers for bands, and side by side.

    Args:
        pruned: method -> ratio -> accuracy, one value a seed.
        references: some of `full`, `clean`, `meta` -> accuracy, one value a seed.
    """
    many = len(pruned) > MANY
    figure, (axes,) = panels(6.6, 5.2 if many else 3.6)
    ratios = sorted({ratio for by_ratio in pruned.values() for ratio in by_ratio})
    apart = 1.2 if len(ratios) == 1 else 0.02 * 100 * min(high - low for low, high in pairwise(ratios))
    ends: list[_End] = []
    for index, (method, look) in enumerate(looks(list(pruned)).items()):
        own = sorted(pruned[method])
        mean, sd = mean_and_sd(np.array([pruned[method][ratio] for ratio in own]).T)
        x = np.array(own) * 100
        line: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markerfacecolor": look.face}
        if many or len(ratios) == 1:
            x = x + apart * (index - (len(pruned) - 1) / 2)
            bars = axes.errorbar(x, mean, sd, ls=look.dashes, lw=1.2, elinewidth=0.8, capsize=2, **line)
            bars[2][0].set_gid(f"band-{method}")
            bars[0].set_gid(f"line-{method}")
        else:
            axes.fill_between(x, mean - sd, mean + sd, color=look.colour, alpha=0.17, lw=0, gid=f"band-{method}")
            axes.plot(x, mean, ls=look.dashes, gid=f"line-{method}", **line)
        ends.append(_End(float(mean[-1]), look.label, look.colour, look.dashes, look.marker, look.face))
    for name, (text, colour, dashes) in REFERENCES.items():
        if name in references:
            level = float(np.mean(references[name]))
            axes.axhline(level, color=colour, ls=dashes, lw=1.2, zorder=1, gid=f"reference-{name}")
            ends.append(_End(level, text, colour, dashes, "", colour))
    margin = max(4.0, apart * len(pruned) / 2 + 1.5, 0.06 * (ratios[-1] - ratios[0]) * 100)
    axes.set_xlim(ratios[0] * 100 - margin, ratios[-1] * 100 + margin)
    axes.set_xticks([ratio * 100 for ratio in ratios], [f"{ratio * 100:g} %" for ratio in ratios])
    axes.set_xlabel("pruning ratio (training examples removed)")
    axes.set_ylabel("test accuracy")
    axes.yaxis.set_major_formatter(PERCENT)
    axes.grid(axis="x", visible=False)
    _label_ends(axes, ends)
    return figure


class _End(NamedTuple):
    height: float
    text: str
    colour: str
    dashes: object
    marker: str
    face: str


def _label_ends(axes: Axes, ends: list[_End]) -> None:
    """Write each label right of the axes at the height of its line, moved apart where they would overlap."""
    from sklearn.isotonic import isotonic_regression  # half a second that other figures do not wait for

    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    gap = 13.5 / height
    ends = sorted(ends, key=lambda end: end.height)
    wanted = np.array([(end.height - low) / (high - low) for end in ends])
    steps = gap * np.arange(len(ends))
    placed = isotonic_regression(wanted - steps) + steps
    placed += max(0.0, 0.01 - placed[0]) - max(0.0, placed[-1] - 1.0)
    for end, start, y in zip(ends, wanted, placed, strict=True):
        options: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "color": end.colour}
        axes.add_line(Line2D([1.0, 1.025], [start, y], lw=0.7, alpha=0.6, **options))
        axes.add_line(Line2D([1.025, 1.045, 1.065], [y, y, y], lw=1.6, ls=end.dashes, **options))
        axes.add_line(Line2D([1.045], [y], marker=end.marker, markersize=5, markerfacecolor=end.face, **options))
        axes.text(1.075, y, end.text, transform=axes.transAxes, va="center", ha="left", fontsize=9)


@drawn
def detection(
    suspicion: Mapping[str, Sequence[tuple[NDArray[np.bool_], NDArray[np.floating]]]], labels: Mapping[str, str]
) -> Figure:
    """ROC and precision-recall curves of finding the mislabelled examples; mean over seeds, band ± 1 sd if few methods.

    Args:
        suspicion: method -> one (mislabelled [n], suspicion [n]) a seed, suspicion = -score.
        labels: method -> legend text, with its AUC.
    """
    figure, (left, right) = panels(9.2, 3.6, 2)
    for method, look in looks(list(suspicion)).items():
        roc = np.array([_roc(*pair) for pair in suspicion[method]])
        precision = np.array([_precision(*pair) for pair in suspicion[method]])
        for axes, name, values in ((left, "roc", roc), (right, "precision", precision)):
            mean, sd = mean_and_sd(values)
            if len(suspicion) <= MANY:
                axes.fill_between(GRID, mean - sd, np.minimum(mean + sd, 1), color=look.colour, alpha=0.17, lw=0)
            line: dict[str, Any] = {"color": look.colour, "ls": look.dashes, "label": labels[method]}
            axes.plot(GRID, mean, gid=f"{name}-{method}", **line)
    left.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=":")
    rate = float(np.mean([wrong.mean() for pairs in suspicion.values() for wrong, _ in pairs]))
    right.axhline(rate, color=MUTED, lw=1, ls=":", label="chance")
    left.set(title="ROC", xlabel="clean examples flagged", ylabel="mislabelled examples found")
    right.set(title="Precision and recall", xlabel="mislabelled examples found (recall)")
    right.set_ylabel("mislabelled among flagged (precision)")
    for axes in (left, right):
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PERCENT)
    legend_below(figure, *right.get_legend_handles_labels(), columns=2)
    return figure


def _roc(wrong: NDArray[np.bool_], suspicion: NDArray[np.floating]) -> NDArray[np.float64]:
    """True positive rate at each false positive rate of GRID."""
    from sklearn.metrics import roc_curve  # as above

    false_positive, true_positive, _ = roc_curve(wrong, suspicion)
    return np.interp(GRID, false_positive, true_positive)


def _precision(wrong: NDArray[np.bool_], suspicion: NDArray[np.floating]) -> NDArray[np.float64]:
    """Precision where each recall of GRID is first reached."""
    from sklearn.metrics import precision_recall_curve  # as above

    precision, recall, _ = precision_recall_curve(wrong, suspicion)
    precision, recall = precision[:-1][::-1], recall[:-1][::-1]  # ascending recall, without the point (0, 1) by fiat
    return precision[np.minimum(np.searchsorted(recall, GRID - 1e-12), len(recall) - 1)]


@drawn
def learning_curves(
    losses: Sequence[Metrics], validation: Mapping[str, Sequence[Metrics]], ceiling: float | None
) -> Figure:
    """Losses of meta-training, and validation accuracy of every training; mean over seeds, band ± 1 sd if few methods.

    Args:
        losses: metrics of meta-training, one entry a seed; may be empty.
        validation: `full`, `clean`, `meta` or a method -> metrics, one entry a seed.
        ceiling: accuracy that a perfect classifier reaches on the validation labels, where they are noisy.
    """
    figure, drawn_on = panels(9.2 if losses else 6.4, 3.2, 2 if losses else 1)
    if losses:
        axes = drawn_on[0]
        names = (("train/loss", "weighted training loss", CLEAN), ("meta/loss", "meta loss", META_TRAINED))
        for column, text, colour in names:
            _curve(axes, losses, column, text, colour, "-")
        axes.set(title="Meta-training", xlabel="base step", ylabel="cross-entropy (nats)")
        axes.legend(loc="upper right")
    axes = drawn_on[-1]
    methods = looks([name for name in validation if name not in REFERENCES])
    for name, frames in validation.items():
        if name in REFERENCES:
            text, colour, dashes = REFERENCES[name]
        else:
            text, colour, dashes = f"pruned: {methods[name].label}", methods[name].colour, methods[name].dashes
        _curve(axes, frames, "validation/accuracy", text, colour, dashes, band=len(methods) <= MANY)
    if ceiling is not None:
        axes.axhline(ceiling, color=MUTED, lw=1, ls=":", label="always right, on these labels")
    axes.set(title="Validation accuracy", xlabel="optimizer step", ylabel="accuracy on the validation labels")
    axes.yaxis.set_major_formatter(PERCENT)
    legend_below(figure, *axes.get_legend_handles_labels(), columns=3 if losses else 2)
    return figure


def _curve(
    axes: Axes, runs: Sequence[Metrics], column: str, text: str, colour: str, dashes: object, band: bool = True
) -> None:
    lines = [(run["step"], run[column]) for run in runs if column in run]
    if not lines:
        return
    steps, values = (np.concatenate(part) for part in zip(*lines, strict=True))
    x = np.unique(steps[~np.isnan(values)])
    at = [mean_and_sd(values[(steps == step) & ~np.isnan(values)]) for step in x]
    y, dy = (np.array(part) for part in zip(*at, strict=True))
    if band:
        axes.fill_between(x, y - dy, y + dy, color=colour, alpha=0.15, lw=0)
    axes.plot(x, y, color=colour, ls=dashes, lw=1.8 if band else 1.2, label=text)  # pyright: ignore[reportArgumentType]
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
