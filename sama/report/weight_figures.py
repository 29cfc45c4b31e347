"""Figures of the importance weights: how they are spread, what they answer to; and grids of images with labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image

from sama.report.reading import Weights
from sama.report.style import CLEAN, INK, MISLABELLED, MUTED, PERCENT, drawn, legend_below, panels

WEIGHT = "importance weight (1 = mean)"
LOSS = "loss: cross-entropy with the observed label (nats)"
UNCERTAINTY = "uncertainty: cross-entropy with the teacher (nats)"
MAX_POINTS = 5_000
HEAD = 0.36  # inches above a block of images
MAX_SIDE = 96  # pixels of an image in the grid
QUANTILES = np.linspace(0.0, 1.0, 513)


@drawn
def weights(per_seed: Sequence[Weights]) -> Figure:
    """Histogram (seeds pooled) and cumulative distribution (a thin line a seed) of the importance weight.

    Clean and mislabelled examples apart; one distribution where that is not known, or none is mislabelled.
    """
    groups = _groups(per_seed)
    figure, (left, right) = panels(9.2, 2.9, 2)
    low, high = min(w.relative.min() for w in per_seed), max(w.relative.max() for w in per_seed)
    edges = np.linspace(low, high, 41) if high > low else np.linspace(low - 0.5, low + 0.5, 42)
    for name, colour, parts in groups:
        pooled = np.concatenate(parts)
        fraction = np.full(len(pooled), 1 / len(pooled))
        left.hist(pooled, edges, weights=fraction, color=colour, alpha=0.55, label=name, gid=f"histogram-{name}")
        left.hist(pooled, edges, weights=fraction, color=colour, histtype="step", lw=1.2)
        for part in parts:
            right.plot(np.quantile(part, QUANTILES), QUANTILES, color=colour, lw=0.8, alpha=0.5)
        right.plot(np.quantile(pooled, QUANTILES), QUANTILES, color=colour, label=name, gid=f"ecdf-{name}")
    left.set(title="How weights are spread", xlabel=WEIGHT, ylabel="fraction of the group")
    right.set(title="How many lie below a weight", xlabel=WEIGHT, ylabel="fraction with a lower weight")
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PERCENT)
    if len(groups) > 1:
        legend_below(figure, *left.get_legend_handles_labels(), columns=2)
    return figure


def _groups(per_seed: Sequence[Weights]) -> list[tuple[str, str, list[NDArray[np.float64]]]]:
    known = [(w.relative, w.wrong) for w in per_seed if w.wrong is not None and w.wrong.any() and not w.wrong.all()]
    if len(known) < len(per_seed):
        return [("all examples", CLEAN, [w.relative for w in per_seed])]
    return [
        ("clean label", CLEAN, [weight[~wrong] for weight, wrong in known]),
        ("mislabelled", MISLABELLED, [weight[wrong] for weight, wrong in known]),
    ]


@dataclass(frozen=True)
class Tile:
    """One image of a grid: uint8 [channels, height, width], its label as learned from, the true one if known."""

    image: NDArray[np.uint8]
    observed: str
    clean: str | None
    weight: float  # relative; NaN where it has none
    suggested: str | None = None  # by a model, where it is another than the observed one

    @property
    def wrong(self) -> bool:
        """Known to be mislabelled."""
        return self.clean is not None and self.clean != self.observed

    @property
    def title(self) -> str:
        """The observed label; below it the suggested one, ticked if it is the true one, or the true one."""
        if self.suggested is not None:
            return f"{_short(self.observed)}\n→ {_short(self.suggested)}{' ✓' * (self.suggested == self.clean)}"
        return _short(self.observed) + (f"\ntrue: {_short(str(self.clean))}" if self.wrong else "")


def images(lowest: Sequence[Tile], highest: Sequence[Tile]) -> Figure:
    """The images of lowest and of highest weight with their labels; a red frame marks a wrong label."""
    return grid([("Lowest weight: pruned first", lowest), ("Highest weight: kept longest", highest)])


@drawn
def grid(blocks: Sequence[tuple[str, Sequence[Tile]]], columns: int = 8) -> Figure:
    """Blocks of images with their labels, each under its title; a red frame marks a label that is known to be wrong."""
    rows = [-(-len(tiles) // columns) for _, tiles in blocks]
    pitch = [1.44 if any("\n" in tile.title for tile in tiles) else 1.3 for _, tiles in blocks]  # a second line
    height = sum(HEAD + count * step for count, step in zip(rows, pitch, strict=True))
    width = columns * 1.08
    figure = Figure(figsize=(width, height))
    top = height  # inches above the lower edge
    for (title, tiles), count, step in zip(blocks, rows, pitch, strict=True):
        figure.text(0.04 / width, (top - 0.1) / height, title, va="top", fontsize=11, fontweight="bold")
        top -= HEAD
        for index, tile in enumerate(tiles):
            row, column = divmod(index, columns)
            corner = (0.04 + column * 1.08, top - (row + 1) * step + 0.17)
            _tile(figure.add_axes((corner[0] / width, corner[1] / height, 1 / width, 1 / height)), tile)
        top -= count * step
    return figure


def _tile(axes: Axes, tile: Tile) -> None:
    pixels = tile.image[0] if len(tile.image) == 1 else np.moveaxis(tile.image, 0, -1)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture = picture.reduce(max(1, -(-max(picture.size) // MAX_SIDE)))
    axes.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set(
        visible=True, color=MISLABELLED if tile.wrong else "#c5ccd2", linewidth=2.4 if tile.wrong else 0.8
    )
    if tile.wrong:
        axes.set_gid("wrong-label")
    weight = "no weight" if np.isnan(tile.weight) else f"weight {tile.weight:.2f}"
    axes.set_xlabel("weight <0.01" if tile.weight < 0.01 else weight, fontsize=6.5, labelpad=2, color=MUTED)
    axes.set_title(tile.title, fontsize=7, pad=3, loc="center", color=MISLABELLED if tile.wrong else INK)


def _short(name: str, width: int = 13) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


@drawn
def scatter(weights: Weights) -> Figure:
    """Weight against loss and against uncertainty for the examples of one seed; no panel for what is not known.

    Of more than `MAX_POINTS` examples a fixed random part is drawn, the same in both panels.
    """
    order = np.random.default_rng(0).permutation(len(weights.weight))[:MAX_POINTS]  # neither group hides the other
    wrong = weights.wrong if weights.wrong is not None else np.zeros(len(weights.weight), dtype=bool)
    colours = np.where(wrong[order], MISLABELLED, CLEAN)
    size = 14 if len(order) < 2000 else 6
    features = ((weights.loss, LOSS), (weights.uncertainty, UNCERTAINTY))
    shown = [(x, text) for x, text in features if x is not None]
    figure, drawn_on = panels(4.6 * max(len(shown), 1.4), 3.3, len(shown), sharey=True)
    for axes, (x, text) in zip(drawn_on, shown, strict=True):
        axes.scatter(x[order], weights.relative[order], s=size, c=list(colours), alpha=0.5, lw=0, rasterized=True)
        axes.set_xlabel(text)
    drawn_on[0].set_ylabel(WEIGHT)
    if wrong.any():
        handles = [
            Line2D([], [], ls="", marker="o", color=colour, label=text)
            for text, colour in (("clean label", CLEAN), ("mislabelled", MISLABELLED))
        ]
        legend_below(figure, handles, [str(handle.get_label()) for handle in handles], columns=2)
    return figure
