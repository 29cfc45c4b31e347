"""Looks of the figures: one colour a method everywhere, fixed fonts, SVG that is byte-identical from run to run.

The first colours are those of Okabe and Ito, which stay apart under the common forms of colour blindness; fourteen do
not, so each score has a marker and dashes of its own besides.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import ParamSpec

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

P = ParamSpec("P")

PERCENT = FuncFormatter(lambda value, _: f"{round(100 * value, 6):g} %")
INK = "#1f2933"
MUTED = "#6b7680"
CLEAN = "#3e6f9e"
MISLABELLED = "#d1495b"
META_TRAINED = "#7b3294"


@dataclass(frozen=True)
class Look:
    """Label, colour, marker and dashes of a method; a variant of another score has its marker hollow."""

    label: str
    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]] = "-"
    hollow: bool = False

    @property
    def face(self) -> str:
        """Colour inside the marker."""
        return "white" if self.hollow else self.colour


_DASHED, _DOTTED, _MIXED = (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5))
_LOOKS = {
    "meta_weight": Look("meta weight", "#0072b2", "o"),
    "meta_weight_loss": Look("meta weight (loss only)", "#56b4e9", "o", _DASHED, hollow=True),
    "random": Look("random", "#7f7f7f", "s"),
    "el2n": Look("EL2N", "#e69f00", "^"),
    "el2n_reversed": Look("EL2N reversed", "#a6611a", "^", _DASHED, hollow=True),
    "grand": Look("GraNd", "#d55e00", ">", _MIXED),
    "margin": Look("margin", "#009e73", "D"),
    "entropy": Look("entropy", "#7cae2b", "v", _DASHED),
    "forgetting": Look("forgetting", "#cc79a7", "X", _MIXED),
    "aum": Look("AUM", "#882255", "P", _DASHED),
    "dyn_unc": Look("Dyn-Unc", "#332288", "*", _MIXED),
    "tdds": Look("TDDS", "#8a7f00", "<", _DOTTED),
    "dual": Look("DUAL", "#e0218a", "d", _DOTTED),
    "prototype": Look("prototype", "#0f5e2e", "p", _DOTTED),
}
MANY = 6  # methods: of more, bands of spread would hide each other

_RC = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8eb",
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 144,
    "figure.dpi": 144,
    "svg.fonttype": "path",
    "svg.hashsalt": "sama",
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
}


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """A look for each method: its own one; a method without takes, by name, one that no other method here has."""
    unknown = sorted(set(methods) - set(_LOOKS))
    free = [look for name, look in _LOOKS.items() if name not in methods] or list(_LOOKS.values())
    lent = {name: replace(free[i % len(free)], label=name.replace("_", " ")) for i, name in enumerate(unknown)}
    return {name: _LOOKS.get(name) or lent[name] for name in methods}


def label(method: str) -> str:
    """The method's name as a reader sees it."""
    return looks([method])[method].label


def signed(value: float, digits: int, plus: bool = False) -> str:
    """The number with a true minus sign, and none before a zero."""
    return f"{round(value, digits) + 0.0:{'+' if plus else ''}.{digits}f}".replace("-", "−")


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style, whatever the user's matplotlibrc says."""
    with matplotlib.style.context(["default", _RC]):
        yield


def drawn(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorate a function that draws a figure: it draws in this style."""

    @wraps(function)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with styled():
            return function(*args, **kwargs)

    return draw


def panels(width: float, height: float, columns: int = 1, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with `columns` axes side by side, each about width / columns × height inches.

    Margins are fixed and `to_svg` crops: matplotlib's layout solvers differ in the last bits from run to run.
    """
    figure = Figure(figsize=(width, height + 0.9))
    grid = {
        "left": 0.75 / width,
        "right": 1 - 0.1 / width,
        "bottom": 0.55 / (height + 0.9),
        "top": 1 - 0.35 / (height + 0.9),
    }
    grid["wspace"] = 0.08 if sharey else 0.24
    axes = figure.subplots(1, columns, sharey=sharey, squeeze=False, gridspec_kw=grid)
    return figure, list(axes[0])


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str], columns: int) -> None:
    """A legend under the axes, outside of them however many entries it has."""
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=columns, borderaxespad=0.2)


def to_svg(figure: Figure) -> str:
    """The figure as SVG text; the same figure gives the same text."""
    buffer = io.StringIO()
    with styled():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return buffer.getvalue()
