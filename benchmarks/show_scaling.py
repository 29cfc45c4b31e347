"""Several processes in figures and tables: plain rows of `benchmarks.scaling` in, nothing else.

A row is a mapping; `part` says whether it is of the curves or of the bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sama.report.page import Drawing, Section
from sama.report.style import MUTED, drawn, legend_below, panels, to_svg
from sama.report.tables import Cell, Table

Row = Mapping[str, Any]
Record = Mapping[str, Any]
Part = tuple[list[Section], dict[str, Drawing]]
METHODS = {"plain": ("plain training", MUTED, "s"), "sama": ("SAMA", "#0072b2", "o")}
BATCHES = {"all": "one batch, divided", "each": "a batch a process"}
STEPS = {"base_step_bytes": ("base step", MUTED, "s"), "meta_step_bytes": ("meta step, beyond it", "#0072b2", "o")}


def bytes_text(count: float) -> str:
    """388 -> '388 B', 2117768 -> '2.1 MB'; decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def curves_of(rows: Sequence[Row]) -> list[Row]:
    """The rows of the curves."""
    return [row for row in rows if row["part"] == "curve"]


def counts_of(rows: Sequence[Row]) -> list[Row]:
    """The rows of the bytes."""
    return [row for row in rows if row["part"] == "bytes"]


@drawn
def scaling_curves(rows: Sequence[Row]) -> Figure:
    """Samples a second against processes, a panel a kind of batch (median; whiskers: quartiles of the rounds)."""
    figure, drawn_on = panels(9.2, 3.0, len(BATCHES), sharey=True)
    for axes, (batch, title) in zip(drawn_on, BATCHES.items(), strict=True):
        for method, (label, colour, marker) in METHODS.items():
            own = [row for row in curves_of(rows) if (row["batch"], row["method"]) == (batch, method)]
            x = [row["processes"] for row in own]
            middle = [row["samples_per_second"] for row in own]
            whiskers = [
                [
                    abs(rate - rate * row["seconds"] / row[f"seconds_{end}"])
                    for rate, row in zip(middle, own, strict=True)
                ]
                for end in ("q3", "q1")
            ]
            line = {"color": colour, "marker": marker, "label": label, "elinewidth": 0.9, "capsize": 3}
            axes.errorbar(x, middle, whiskers, **line)[0].set_gid(f"rate-{batch}-{method}")
            _whole_ticks(axes, x)
        axes.set(title=title, xlabel="processes", ylim=(0, None))
    drawn_on[0].set_ylabel("samples a second, all processes")
    legend_below(figure, *drawn_on[0].get_legend_handles_labels(), columns=len(METHODS))
    return figure


def _whole_ticks(axes: Axes, x: Sequence[int]) -> None:
    axes.set_xticks(list(x), [str(value) for value in x])


@drawn
def step_bytes(rows: Sequence[Row]) -> Figure:
    """What a process hands to collectives, against the size of the base model and of the meta network."""
    figure, drawn_on = panels(9.2, 3.0, 2, sharey=True)
    for axes, (own, column, name) in zip(drawn_on, _sweeps(counts_of(rows)), strict=True):
        for key, (label, colour, marker) in STEPS.items():
            x, y = [row[column] for row in own], [row[key] for row in own]
            axes.plot(x, y, color=colour, marker=marker, label=label, gid=f"{key}-{column}")
        axes.set(xscale="log", yscale="log", xlabel=f"size of the {name}")
        axes.set_xticks([row[column] for row in own], [bytes_text(row[column]) for row in own])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(value)))
    drawn_on[0].set_ylabel("bytes a step and process")
    legend_below(figure, *drawn_on[0].get_legend_handles_labels(), columns=len(STEPS))
    return figure


def _sweeps(rows: Sequence[Row]) -> list[tuple[list[Row], str, str]]:
    """Rows with the first one's meta network, and rows with its base model, each by size."""
    found = []
    for fixed, column, name in (
        ("meta_width", "base_parameter_bytes", "base model"),
        ("width", "meta_parameter_bytes", "meta network"),
    ):
        own = sorted((row for row in rows if row[fixed] == rows[0][fixed]), key=lambda row: row[column])
        found.append((own, column, name))
    return found


def scaling_table(rows: Sequence[Row]) -> Table:
    """Processes × method: samples a second, time and memory beside plain training."""
    body = []
    for row in curves_of(rows):
        spread = f"{row['time_ratio']:.2f} ({row['time_ratio_q1']:.2f}–{row['time_ratio_q3']:.2f})"
        body.append(
            [
                Cell(BATCHES[row["batch"]]),
                Cell(str(row["processes"])),
                Cell(str(row["examples"])),
                Cell(METHODS[row["method"]][0]),
                Cell(f"{row['samples_per_second']:.3g}"),
                Cell("1" if row["method"] == "plain" else spread),
                Cell(bytes_text(row["peak_bytes"])),
            ]
        )
    header = ["Batch", "Processes", "Examples a process", "Training", "Samples/s", "Time / plain", "Peak a process"]
    note = "Medians of interleaved rounds; ratios are of the same round, with quartiles. Memory: tensors of a process."
    return Table("Several processes", header, body, [note])


def bytes_table(rows: Sequence[Row]) -> Table:
    """Sizes of both models × bytes that a base step and a meta step move."""
    header = ["Base model", "Meta network", "Base step moves", "A meta step moves beyond it"]
    keys = ("base_parameter_bytes", "meta_parameter_bytes", "base_step_bytes", "meta_step_bytes")
    body = [[Cell(bytes_text(row[key])) for key in keys] for row in counts_of(rows)]
    note = (
        "What a process hands to collectives, counted. A base step moves the gradient and one value a parameter; a "
        "meta step as much as the meta network has, however large the base model is."
    )
    return Table("Bytes moved a step", header, body, [note])


def scaling_caption(rows: Sequence[Row], cores: int, gpu: str | None) -> str:
    """Caption of the curves; says where processes shared cores."""
    most = max(row["processes"] for row in rows)
    text = "Samples a second of all processes together, a meta step a base step. Whiskers: quartiles of the rounds. "
    if gpu is not None:
        return text + f"A GPU a process ({gpu})."
    if most > cores:
        return text + f"Up to {most} processes on {cores} cores: beyond {cores} they share cores, and cannot gain."
    return text + "A core a process."


BYTES_CAPTION = (
    "Left: the base model grows and the meta network stays; right: the reverse. A meta step's bytes follow the meta "
    "network alone."
)


def part(record: Record) -> Part:
    """Sections and figures of a record of `benchmarks.scaling`."""
    rows, hardware = record["rows"], record["hardware"]
    caption = scaling_caption(curves_of(rows), hardware["cores"], hardware["gpu"])
    drawings = {
        "scaling": Drawing(to_svg(scaling_curves(rows)), "Samples a second against processes", caption),
        "bytes": Drawing(to_svg(step_bytes(rows)), "Bytes a step against model sizes", BYTES_CAPTION),
    }
    tables = [scaling_table(rows), bytes_table(rows)]
    pictures = list(drawings.values())
    return [Section("scaling", "Several processes", [], pictures, tables, command=record["command"])], drawings
