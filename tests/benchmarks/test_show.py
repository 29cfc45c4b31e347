"""Figures and tables of processes, link and peers, from rows whose cells are known."""

import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from benchmarks import page, show_peers, show_scaling, show_slow_link, tables
from benchmarks.scaling import KINDS
from benchmarks.slow_link import CANDIDATES
from sama.report.tables import Table

HARDWARE = {"machine": "x86_64", "cores": 2, "gpu": None, "torch": "2.15.0"}


def spread(name: str, middle: float) -> dict[str, float]:
    return {name: middle, f"{name}_q1": 0.9 * middle, f"{name}_q3": 1.2 * middle}


def record(benchmark: str, rows: list[dict], **settings) -> dict:
    command = f"python -m benchmarks.{benchmark} OUT.json"
    return {"benchmark": benchmark, "command": command, "hardware": HARDWARE, "settings": settings, "rows": rows}


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def points(figure: Figure) -> dict[str | None, list[list[float]]]:
    """Line -> its points."""
    return {line.get_gid(): np.asarray(line.get_xydata()).tolist() for axes in figure.axes for line in axes.get_lines()}


def curve(batch: str, processes: int, method: str, seconds: float, ratio: float) -> dict:
    place = {"part": "curve", "batch": batch, "processes": processes, "examples": 8, "method": method}
    rate = {"samples_per_second": 8 * processes / seconds, "peak_bytes": 2_100_000}
    return place | spread("seconds", seconds) | rate | spread("time_ratio", ratio)


def count(width: int, meta_width: int, theta: int, lam: int) -> dict:
    sizes = {"width": width, "meta_width": meta_width, "base_parameter_bytes": theta, "meta_parameter_bytes": lam}
    return {"part": "bytes", "processes": 2} | sizes | {"base_step_bytes": theta + 72, "meta_step_bytes": lam}


CURVES = [
    curve(batch, processes, method, 0.5 * ratio, ratio)
    for batch in ("all", "each")
    for processes in (1, 2, 4)
    for method, ratio in zip(KINDS, (1.0, 2.5), strict=True)
]
COUNTS = [count(16, 32, 80_000, 388), count(64, 32, 9_000_000, 388), count(16, 64, 80_000, 772)]


def test_scaling():
    (section,), drawings = show_scaling.part(record("scaling", CURVES + COUNTS))
    curves, moved = section.tables
    spread_of = ["one batch, divided", "2", "8", "SAMA", "12.8", "2.50 (2.25–3.00)", "2.1 MB"]
    assert texts(curves)[3] == spread_of and texts(curves)[2][5] == "1"
    assert texts(moved)[1] == ["9 MB", "388 B", "9 MB", "388 B"]
    assert "Up to 4 processes on 2 cores" in drawings["scaling"].caption
    lines = points(show_scaling.step_bytes(CURVES + COUNTS))
    assert lines["meta_step_bytes-base_parameter_bytes"] == [[80_000, 388], [9_000_000, 388]]
    assert lines["meta_step_bytes-meta_parameter_bytes"] == [[388, 388], [772, 772]]
    rates = points(show_scaling.scaling_curves(CURVES))["rate-all-sama"]
    assert [y for _, y in rates] == pytest.approx([6.4, 12.8, 25.6])


def test_who_shares_a_core_is_said():
    assert show_scaling.scaling_caption(section_rows(), 8, None).endswith("A core a process.")
    assert "A GPU a process (H200)" in show_scaling.scaling_caption(section_rows(), 2, "H200")


def section_rows() -> list[dict]:
    return [curve("all", processes, "plain", 1.0, 1.0) for processes in (1, 4)]


def link(rate: float | None, reduction: str, seconds: float, ratio: float) -> dict:
    moved = {"step_bytes": 2_000_000, "meta_step_bytes": 388, "sent_bytes": 2_200_000}
    times = spread("seconds", seconds) | spread("meta_seconds", 0.1) | spread("time_ratio", ratio)
    return {"megabits_per_second": rate, "reduction": reduction} | times | {"time_ratio_least": 0.8 * ratio} | moved


LINKS = [
    link(rate, reduction, 0.2 * ratio, ratio)
    for rate, worst in ((100, 1.5), (1000, 1.2), (None, 1.1))
    for reduction, ratio in zip(CANDIDATES, (0.5, 1.0, 1.0, worst), strict=True)
]


def test_slow_link():
    (section,), drawings = show_slow_link.part(record("slow_link", LINKS, refused=None))
    found = texts(section.tables[0])
    assert found[0][:4] == ["100 Mbit/s", "base step alone", "0.1", "0.50 (0.45–0.60)"]
    assert found[1] == ["100 Mbit/s", "SAMA: once, overlapped", "0.2", "1", "0.1", "388 B", "2.2 MB"]
    assert [row[0] for row in found[3::4]] == ["100 Mbit/s", "1 Gbit/s", "not shaped"]
    assert "takes 1.50 times as long at 100 Mbit/s (least of the rounds: 1.20)" in drawings["slow_link"].caption
    assert [y for _, y in points(show_slow_link.slow_link(LINKS))["link-each_pass"]] == pytest.approx([0.3, 0.24, 0.22])


def test_a_link_that_was_refused_is_a_sentence():
    (section,), drawings = show_slow_link.part(record("slow_link", [], refused="network namespaces need root"))
    assert section.texts == ["The slow link was left out: network namespaces need root."]
    assert not drawings and not section.tables


def peer(name: str, version: str | None, ratio: float, difference: float | None) -> dict:
    times = spread("seconds", ratio) | spread("time_ratio", ratio) | spread("ratio_to_sama", ratio / 2.5)
    found = {"peer": name, "status": "measured", "version": version, "difference": difference, "cosine": 1.0}
    return found | times | {"peak_bytes": int(ratio * 1e7)}


PEERS = [peer("plain training", None, 1.0, None), peer("sama", None, 2.5, 0.03), peer("higher", "0.2.1", 5.0, 4e-16)]
PEERS.append({"peer": "TorchOpt", "status": "not installed: torchopt", "version": None})


def test_peers():
    (section,), drawings = show_peers.part(record("peers", PEERS))
    found = texts(section.tables[0])
    assert found[0][-1] == "–" and found[1][0] == "SAMA"
    assert found[2] == ["higher 0.2.1", "5", "5.00 (4.50–6.00)", "2.00 (1.80–2.40)", "50 MB", "4e-16"]
    assert found[3] == ["TorchOpt", "not installed: torchopt"]
    assert section.tables[0].rows[3][1].span == len(section.tables[0].header) - 1
    times, memory = show_peers.peers(PEERS).axes
    assert [label.get_text() for label in times.get_yticklabels()] == ["plain training", "SAMA", "higher 0.2.1"]
    bars = [
        patch.get_width()
        for container in memory.containers
        if isinstance(container, BarContainer)
        for patch in container
    ]
    assert bars == pytest.approx([1.0, 2.5, 5.0])
    assert list(drawings) == ["peers"]


def test_page_and_readme_take_them_all(tmp_path):
    records = [record("scaling", CURVES + COUNTS), record("slow_link", LINKS, refused=None), record("peers", PEERS)]
    page.build(tmp_path, records, "three files")
    html = (tmp_path / "index.html").read_text()
    for made in records:
        assert made["command"] in html
    assert sorted(path.stem for path in tmp_path.glob("figures/*")) == ["bytes", "peers", "scaling", "slow_link"]
    for made, rows in zip(records, (len(COUNTS), 6, len(PEERS)), strict=True):
        table = tables.summary(made)
        assert len(table.rows) == rows
        assert table.notes[-1] == f"x86_64, 2 cores, no GPU, torch 2.15.0: `{made['command']}`"


def test_bytes_in_words():
    assert [show_scaling.bytes_text(n) for n in (0, 388, 999, 3084, 2117768, 5e9)] == [
        "0 B",
        "388 B",
        "999 B",
        "3.08 kB",
        "2.12 MB",
        "5 GB",
    ]
