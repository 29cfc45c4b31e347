"""Tables of what benchmarks wrote, for the page and for the README."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks import show_peers, show_scaling, show_slow_link
from benchmarks.iteration import PLAIN
from sama.report.tables import Cell, Table

Record = Mapping[str, Any]
Row = Mapping[str, Any]


def machine(record: Record) -> str:
    """The hardware in words."""
    found = record["hardware"]
    gpu = f"{found['gpu']}, driver {found.get('driver')}" if found["gpu"] else "no GPU"
    return f"{found['machine']}, {found['cores']} cores, {gpu}, torch {found['torch']}"


def place(row: Row) -> str:
    """Where a row was measured, but for the unroll."""
    return f"{row['shape']}, batches of {row['examples']} × {row['length']}"


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those that memory sufficed for."""
    return [row for row in rows if row["status"] == "ok"]


def groups(rows: Sequence[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of these columns, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[column] for column in columns), []).append(row)
    return found


def cells_of(record: Record) -> list[list[Row]]:
    """The rows of each cell; the first one is what the others vary."""
    return list(groups(record["rows"], "shape", "examples", "length", "unroll").values())


KERNELS = "Attention: the math kernel where a meta step needs second derivatives or tangents."


def throughput_cell(rows: Sequence[Row]) -> Table:
    """Method -> attention, and absolute figures with what they are in plain training's."""
    lines = []
    for row in rows:
        name, kernels = Cell(row["method"]), Cell(row["attention"])
        if row["status"] != "ok":
            lines.append([name, kernels, Cell(row["status"], span=5)])
            continue
        spread = f"{row['seconds_q1']:.3g}–{row['seconds_q3']:.3g}"
        lines.append(
            [
                name,
                kernels,
                Cell(f"{row['samples_per_second']:.3g}"),
                Cell(f"{row['seconds']:.3g} ({spread}){times(row, 'time_ratio')}"),
                Cell(f"{row['flops'] / 1e9:.3g}{times(row, 'flops_ratio')}"),
                Cell(f"{row['peak_bytes'] / 1e6:,.0f}{times(row, 'memory_ratio')}"),
                Cell("" if row["copies_above_plain"] is None else f"{row['copies_above_plain']:.2f}"),
            ]
        )
    header = [
        "Method",
        "Attention",
        "Samples/s",
        "Seconds an iteration",
        "GFLOP",
        "Peak memory, MB",
        "Copies above plain",
    ]
    note = (
        f"{rounds(rows)} rounds in which the methods took turns: seconds a meta iteration, median (quartiles). × is a "
        "multiple of plain training's; that of time is the median over the rounds. Copies: peak memory above plain "
        f"training's, in bytes of the parameters. {KERNELS}"
    )
    return Table(f"{place(rows[0])}, {rows[0]['unroll']} base steps a meta step", header, lines, [note])


def times(row: Row, column: str) -> str:
    """' · 2.67×', or nothing for plain training itself."""
    if row[column] is None or row["method"] == PLAIN:
        return ""
    return f" · {row[column]:.2f}×"


def rounds(rows: Sequence[Row]) -> str:
    """How often an iteration was timed."""
    counts = sorted({row["rounds"] for row in measured(rows)})
    return "no" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def throughput_growth(record: Record) -> Table:
    """Method × cell: time and memory in multiples of plain training's, and what the operations say."""
    found = cells_of(record)
    methods = list(dict.fromkeys(row["method"] for row in record["rows"] if row["method"] != PLAIN))
    lines = []
    for method in methods:
        line = [Cell(method)]
        for rows in found:
            # without attention there are no kernels to choose from
            row = next((row for row in rows if row["method"] == method), None)
            line.append(Cell("–" if row is None else ratios(row)))
        lines.append(line)
    header = [
        "Method",
        *(f"{rows[0]['shape']} {rows[0]['examples']}×{rows[0]['length']}, {rows[0]['unroll']}" for rows in found),
    ]
    note = (
        "Time (what the operations say) / peak memory, in multiples of plain training's; columns: shape, batch, unroll."
    )
    return Table("How it grows", header, lines, [note])


def ratios(row: Row) -> str:
    """'2.71 (2.67) / 1.22'."""
    if row["status"] != "ok":
        return row["status"]
    if row["time_ratio"] is None:
        return "–"
    return f"{row['time_ratio']:.2f} ({row['flops_ratio']:.2f}) / {row['memory_ratio']:.2f}"


def throughput(record: Record) -> Table:
    """For the README: method -> samples/s and memory at the first cell, time in plain training's by unroll."""
    first = cells_of(record)[0]
    at = {key[0]: rows for key, rows in groups(record["rows"], "unroll").items()}
    at = {steps: [row for row in rows if place(row) == place(first[0])] for steps, rows in at.items()}
    lines = []
    for row in first:
        line = [Cell(row["method"]), Cell(row["attention"])]
        if row["status"] == "ok":
            line.append(Cell(f"{row['samples_per_second']:.3g}"))
            line.append(Cell(f"{row['peak_bytes'] / 1e6:,.0f}{times(row, 'memory_ratio')}"))
            line.append(Cell("–" if row["copies_above_plain"] is None else f"{row['copies_above_plain']:.2f}"))
        else:
            line += [Cell(row["status"]), Cell("–"), Cell("–")]
        for rows in at.values():
            own = [own for own in measured(rows) if own["method"] == row["method"] and own["time_ratio"] is not None]
            line.append(Cell(spread_of_time(own[0]) if own else "–"))
        lines.append(line)
    unrolled = [f"Time, unroll {steps}" for steps in at]
    rate = f"Samples/s, unroll {first[0]['unroll']}"
    header = ["Method", "Attention", rate, "Peak memory, MB", "Copies above plain", *unrolled]
    note = (
        f"{record['settings']['optimizer']}, dropout {record['settings']['dropout']:g}; time in multiples of "
        f"plain training's of the same round, median and quartiles of {rounds(first)} rounds (in parentheses what the "
        f"operations say). Copies: peak memory above plain training's, in bytes of the parameters. {KERNELS} "
        f"{machine(record)}: `{record['command']}`"
    )
    return Table(f"Throughput and memory: {place(first[0])}", header, lines, [note])


def spread_of_time(row: Row) -> str:
    """'2.97, 2.87–3.13 (2.66)'; of plain training itself '1'."""
    if row["method"] == PLAIN:
        return "1"
    return f"{row['time_ratio']:.2f}, {row['time_ratio_q1']:.2f}–{row['time_ratio_q3']:.2f} ({row['flops_ratio']:.2f})"


def everything(record: Record) -> Table:
    """The rows as they are."""
    columns = list(dict.fromkeys(column for row in record["rows"] for column in row))
    lines = [[Cell(plain(row.get(column))) for column in columns] for row in record["rows"]]
    header = [column.replace("_", " ") for column in columns]
    return Table(record["benchmark"].replace("_", " "), header, lines, [f"{machine(record)}: `{record['command']}`"])


def plain(value: Any) -> str:
    """A value of a row as text."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def noted(record: Record, table: Table) -> Table:
    """The table with hardware and command below."""
    return replace(table, notes=[*table.notes, f"{machine(record)}: `{record['command']}`"])


SUMMARY: dict[str, Callable[[Record], Table]] = {
    "throughput": throughput,
    "scaling": lambda record: noted(record, show_scaling.bytes_table(record["rows"])),
    "slow_link": lambda record: noted(record, show_slow_link.slow_link_table(record["rows"], show_slow_link.RIVALS)),
    "peers": lambda record: noted(record, show_peers.peers_table(record["rows"])),
}
"""Benchmark -> its table in the README; another one has all its rows there."""


def summary(record: Record) -> Table:
    """The record's table in the README."""
    return SUMMARY.get(record["benchmark"], everything)(record)
