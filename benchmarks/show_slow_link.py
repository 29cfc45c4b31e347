"""The slow link in a figure and a table: plain rows of `benchmarks.slow_link` in, nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.show_scaling import bytes_text
from sama.report.page import Drawing, Section
from sama.report.style import MUTED, drawn, legend_below, panels, to_svg
from sama.report.tables import Cell, Table

Row = Mapping[str, Any]
Record = Mapping[str, Any]
Part = tuple[list[Section], dict[str, Drawing]]
REDUCTIONS = {
    "plain": ("base step alone", MUTED, "s", ":"),
    "overlapped": ("SAMA: once, overlapped", "#0072b2", "o", "-"),
    "afterwards": ("once, after the pass", "#56b4e9", "v", (0, (5, 1.6))),
    "each_pass": ("at each of the three passes", "#d55e00", "^", "-"),
}


def rate_text(megabits: float | None) -> str:
    """100 -> '100 Mbit/s', 1000 -> '1 Gbit/s', None -> 'not shaped'."""
    if megabits is None:
        return "not shaped"
    return f"{megabits / 1000:g} Gbit/s" if megabits >= 1000 else f"{megabits:g} Mbit/s"


@drawn
def slow_link(rows: Sequence[Row]) -> Figure:
    """Seconds of a meta iteration against the rate of the link (median; whiskers: quartiles of the rounds)."""
    figure, (axes,) = panels(7.6, 3.2)
    rates = list(dict.fromkeys(row["megabits_per_second"] for row in rows))
    for reduction, (label, colour, marker, dashes) in REDUCTIONS.items():
        own = [row for row in rows if row["reduction"] == reduction]
        middle = [row["seconds"] for row in own]
        whiskers = [
            [abs(row[f"seconds_{end}"] - value) for value, row in zip(middle, own, strict=True)] for end in ("q1", "q3")
        ]
        line = {"color": colour, "marker": marker, "ls": dashes, "label": label, "elinewidth": 0.9, "capsize": 3}
        x = [rates.index(row["megabits_per_second"]) for row in own]
        axes.errorbar(x, middle, whiskers, **line)[0].set_gid(f"link-{reduction}")
    axes.set_xticks(range(len(rates)), [rate_text(rate) for rate in rates])
    axes.set(xlabel="rate of the link between two processes", ylabel="seconds a meta iteration", ylim=(0, None))
    legend_below(figure, *axes.get_legend_handles_labels(), columns=2)
    return figure


RIVALS = ("overlapped", "each_pass")


def slow_link_table(rows: Sequence[Row], shown: Sequence[str] = tuple(REDUCTIONS)) -> Table:
    """Rate × reduction: time of an iteration, its ratio to SAMA's, and bytes."""
    body = []
    for row in (row for row in rows if row["reduction"] in shown):
        spread = f"{row['time_ratio']:.2f} ({row['time_ratio_q1']:.2f}–{row['time_ratio_q3']:.2f})"
        body.append(
            [
                Cell(rate_text(row["megabits_per_second"])),
                Cell(REDUCTIONS[row["reduction"]][0]),
                Cell(f"{row['seconds']:.3g}"),
                Cell("1" if row["reduction"] == "overlapped" else spread),
                Cell("–" if row["reduction"] == "plain" else f"{row['meta_seconds']:.3g}"),
                Cell("–" if row["reduction"] == "plain" else bytes_text(row["meta_step_bytes"])),
                Cell(bytes_text(row["sent_bytes"])),
            ]
        )
    header = [
        "Link",
        "Reduction",
        "s an iteration",
        "Time / SAMA",
        "s of its meta step",
        "A meta step reduces",
        "An iteration sends",
    ]
    note = (
        "Medians of interleaved rounds; ratios are of the same round, with quartiles. Sent: by one end of the link, "
        "headers included; the base step's gradient is in it."
    )
    return Table("A slow link between two processes", header, body, [note])


def slow_link_caption(rows: Sequence[Row], refused: str | None) -> str:
    """Caption of the figure; or why there is none."""
    if not rows:
        return f"The slow link was left out: {refused}."
    worst = max((row for row in rows if row["reduction"] == "each_pass"), key=lambda row: row["time_ratio"])
    return (
        "A meta iteration (one base step, one meta step) of two processes in network namespaces with one shaped link. "
        f"Reducing at each pass takes {worst['time_ratio']:.2f} times as long at "
        f"{rate_text(worst['megabits_per_second'])} (least of the rounds: {worst['time_ratio_least']:.2f})."
    )


def part(record: Record) -> Part:
    """Sections and figures of a record of `benchmarks.slow_link`; where it was refused, a sentence that says why."""
    rows = record["rows"]
    caption = slow_link_caption(rows, record["settings"]["refused"])
    if not rows:
        return [Section("slow_link", "A slow link", [caption], [], [])], {}
    drawings = {
        "slow_link": Drawing(to_svg(slow_link(rows)), "Time of a meta iteration against the link's rate", caption)
    }
    pictures, tables = list(drawings.values()), [slow_link_table(rows)]
    return [Section("slow_link", "A slow link", [], pictures, tables, command=record["command"])], drawings
