"""The page of the benchmarks: tables and figures of what they wrote, self-contained.

`python -m benchmarks.page OUT FILE…` reads the JSON of benchmarks and writes OUT/index.html and OUT/figures/*.svg.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import figures, show_peers, show_scaling, show_slow_link
from benchmarks.iteration import PLAIN
from benchmarks.tables import (
    Record,
    Row,
    cells_of,
    everything,
    machine,
    measured,
    place,
    throughput_cell,
    throughput_growth,
)
from sama.files import read_json
from sama.report.page import Drawing, Page, Section, Tile, show, write
from sama.report.style import to_svg

Part = tuple[list[Section], dict[str, Drawing]]


def throughput(record: Record) -> Part:
    """Costs at the first cell, then how they grow with unroll, batch and model."""
    first = cells_of(record)[0]
    drawings: dict[str, Drawing] = {}
    if len(measured(first)) > 1:
        caption = (
            f"{place(first[0])}, unroll {first[0]['unroll']}: a meta iteration of each method, beside plain training "
            "of as many steps in the same run. Bars: median over the rounds, whiskers: quartiles; diamond: what the "
            "number of floating-point operations says."
        )
        drawings["ratios"] = drawing(figures.ratios(measured(first)), "Time and peak memory of each method", caption)
    drawings |= growth(record["rows"], first[0])
    sections = [
        Section(
            "throughput", "Throughput and memory", [said(record)], pick(drawings, "ratios"), [throughput_cell(first)]
        ),
        Section("growth", "Growth", [], pick(drawings, "time", "memory"), [throughput_growth(record)]),
    ]
    others = [throughput_cell(rows) for rows in cells_of(record)[1:]]
    if others:
        sections.append(Section("cells", "Every cell", [], [], others))
    return sections, drawings


def growth(rows: Sequence[Row], first: Row) -> dict[str, Drawing]:
    """Absolute time and memory against each variable that took several values."""
    varied = {"unroll": "base steps a meta step", "examples": "examples a batch", "parameters": "parameters"}
    family = first["shape"].split("_")[0]
    panels = []
    for column, text in varied.items():
        fixed = {"unroll", "examples", "shape"} - {"shape" if column == "parameters" else column}
        own = [row for row in measured(rows) if all(row[key] == first[key] for key in fixed)]
        own = [row for row in own if row["shape"].split("_")[0] == family]
        if len({row[column] for row in own}) > 1:
            panels.append((column, own, text))
    if not panels:
        return {}
    caption = "One variable at a time, the others as in the first table; both axes are logarithmic."
    shown = {
        "time": ("seconds", "seconds a meta iteration", "Time of a meta iteration", caption),
        "memory": ("peak_bytes", "peak memory, MB", "Peak memory", caption),
    }
    return {
        name: drawing(figures.growth(panels, value, label), f"{alt} against unroll, batch and model", f"{alt}. {said}")
        for name, (value, label, alt, said) in shown.items()
    }


def drawing(figure: figures.Figure, alt: str, caption: str) -> Drawing:
    return Drawing(to_svg(figure), alt, caption)


def pick(drawings: dict[str, Drawing], *names: str) -> list[Drawing]:
    return [drawings[name] for name in names if name in drawings]


def said(record: Record) -> str:
    """Hardware and settings in a sentence."""
    settings = ", ".join(f"{key} {value}" for key, value in record["settings"].items())
    return f"{machine(record)}; {settings}; commit {record['commit']}."


def rows_alone(record: Record) -> Part:
    """A benchmark without a look of its own: its rows."""
    name = record["benchmark"]
    return [
        Section(
            name,
            name.replace("_", " ").capitalize(),
            [said(record)],
            [],
            [everything(record)],
            command=record["command"],
        )
    ], {}


PARTS: dict[str, Callable[[Record], Part]] = {
    "throughput": throughput,
    "scaling": show_scaling.part,
    "slow_link": show_slow_link.part,
    "peers": show_peers.part,
}
"""Benchmark -> its sections and its figures by name; another one shows its rows."""


def tiles(record: Record) -> list[Tile]:
    """SAMA beside plain training and the rivals, at the first cell."""
    at = {row["method"]: row for row in measured(cells_of(record)[0])}
    sama, found = at.get("sama"), []
    if sama is None or PLAIN not in at:
        return []
    blue = figures.look("sama").colour
    text = f"time of a SAMA iteration, in plain training's; the operations say {sama['flops_ratio']:.2f}"
    found.append(Tile(f"{sama['time_ratio']:.2f}×", "", text, blue))
    text = "copies of the parameters that SAMA's peak memory is above plain training's"
    found.append(Tile(f"{sama['copies_above_plain']:.2f}", "", text, blue))
    for method in ("neumann, 3 iterations", "cg, 3 iterations"):
        if method in at:
            own, look = at[method], figures.look(method)
            less = own["peak_bytes"] / sama["peak_bytes"]
            text = f"SAMA's throughput against {look.label}, with {less:.2f}× less memory"
            found.append(Tile(f"{own['time_ratio'] / sama['time_ratio']:.2f}×", "", text, look.colour))
    return found


def build(out: Path, records: Sequence[Record], source: str) -> None:
    """Write the page of these records."""
    sections: list[Section] = []
    drawings: dict[str, Drawing] = {}
    shown: list[Tile] = []
    for record in records:
        parts, figures_of = PARTS.get(record["benchmark"], rows_alone)(record)
        sections += parts
        drawings |= figures_of
        shown += tiles(record) if record["benchmark"] == "throughput" else []
    subtitle = "; ".join(dict.fromkeys(machine(record) for record in records))
    findings = ["Timings of one machine at one time. What else it did meanwhile met all methods of a benchmark alike."]
    write(out, show(Page("Benchmarks", subtitle, shown, findings, sections, source)), drawings)


def main() -> None:
    """Read, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the page")
    parser.add_argument("files", nargs="+", type=Path, help="what benchmarks wrote")
    given = parser.parse_args()
    build(given.out, [read_json(path) for path in given.files], ", ".join(path.as_posix() for path in given.files))


if __name__ == "__main__":
    main()
