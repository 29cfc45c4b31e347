"""SAMA beside other libraries in a figure and a table: plain rows of `benchmarks.peers` in, nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.show_scaling import bytes_text
from sama.report.page import Drawing, Section
from sama.report.style import INK, MUTED, drawn, panels, to_svg
from sama.report.tables import Cell, Table

Row = Mapping[str, Any]
Record = Mapping[str, Any]
Part = tuple[list[Section], dict[str, Drawing]]
LABELS = {"sama": "SAMA", "sama's itd": "one unrolled step, ours"}
OURS, PLAIN, OTHERS = "#0072b2", MUTED, "#e69f00"


def label(row: Row) -> str:
    """The peer's name, with its version where it has one."""
    name: str = LABELS.get(row["peer"]) or row["peer"]
    return f"{name} {row['version']}" if row["version"] else name


def measured(rows: Sequence[Row]) -> list[Row]:
    """The rows of the peers that ran."""
    return [row for row in rows if row["status"] == "measured"]


@drawn
def peers(rows: Sequence[Row]) -> Figure:
    """Time of a meta iteration and memory, both beside plain training's (median; whiskers: quartiles of the rounds)."""
    own = sorted(measured(rows), key=lambda row: row["time_ratio"])
    figure, (times, memory) = panels(9.2, 0.42 * len(own), 2)
    plain = next(row for row in own if row["peer"] == "plain training")
    for y, row in enumerate(own):
        colour = {"plain training": PLAIN, "sama": OURS, "sama's itd": OURS}.get(row["peer"], OTHERS)
        low, high = row["time_ratio"] - row["time_ratio_q1"], row["time_ratio_q3"] - row["time_ratio"]
        times.barh(y, row["time_ratio"], xerr=[[low], [high]], color=colour, height=0.62, capsize=3)
        memory.barh(y, row["peak_bytes"] / plain["peak_bytes"], color=colour, height=0.62)
        text = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "color": INK}
        times.annotate(f"{row['time_ratio']:.2f}", (row["time_ratio_q3"], y), **text)
        memory.annotate(
            f"{row['peak_bytes'] / plain['peak_bytes']:.2f}", (row["peak_bytes"] / plain["peak_bytes"], y), **text
        )
    times.set_yticks(range(len(own)), [label(row) for row in own])
    memory.set_yticks(range(len(own)), [""] * len(own))
    times.set_xlabel("time of an iteration, in plain steps")
    memory.set_xlabel("peak memory, in plain training's")
    for axes in (times, memory):
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.15)
    return figure


def peers_table(rows: Sequence[Row]) -> Table:
    """Peer × time, memory and agreement; those that did not run say why."""
    header = ["Hypergradient by", "s an iteration", "Time / plain", "Time / SAMA", "Peak", "Agrees with ours to"]
    body = []
    for row in rows:
        if row["status"] != "measured":
            body.append([Cell(label(row)), Cell(row["status"], span=len(header) - 1)])
            continue
        ratios = [
            f"{row[key]:.2f} ({row[f'{key}_q1']:.2f}–{row[f'{key}_q3']:.2f})" if key in row else "–"
            for key in ("time_ratio", "ratio_to_sama")
        ]
        agrees = "–" if row["difference"] is None else f"{row['difference']:.1g}"
        body.append(
            [
                Cell(text)
                for text in (label(row), f"{row['seconds']:.3g}", *ratios, bytes_text(row["peak_bytes"]), agrees)
            ]
        )
    notes = [
        "Medians of interleaved rounds; ratios are of the same round, with quartiles. Peak: parameters and the most "
        "that is alive above them. Attention runs with its math kernel while a second derivative is taken; SAMA and "
        "plain training have the fused one.",
        "Agrees: relative difference of two hypergradients in float64 from those of our own unrolled step. SAMA takes "
        "another point and a finite difference, and so is near them only.",
    ]
    return Table("Other ways to a hypergradient", header, body, notes)


PEERS_CAPTION = (
    "A meta iteration with one step of SGD before the meta step, of each library in the same run. Left: time, "
    "whiskers: quartiles of the rounds; right: peak memory, the parameters included. Shorter is better."
)


def part(record: Record) -> Part:
    """Sections and figures of a record of `benchmarks.peers`."""
    rows = record["rows"]
    drawings = {"peers": Drawing(to_svg(peers(rows)), "Time and peak memory of each peer", PEERS_CAPTION)}
    pictures, tables = list(drawings.values()), [peers_table(rows)]
    return [Section("peers", "Other libraries", [], pictures, tables, command=record["command"])], drawings
