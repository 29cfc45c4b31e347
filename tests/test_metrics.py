"""The growing metrics file, and what people see while it grows."""

import io
import math
import os
import pty
import select
import sys
from pathlib import Path

import pytest

from sama import metrics
from sama.errors import SamaError
from sama.metrics import MetricLog, Progress, read_metrics


def test_lines_are_flat_json_without_a_clock(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    with MetricLog(path) as log:
        log.write(25, {"train/loss": 1.5, "count": 3})
        assert path.read_text() == '{"step": 25, "train/loss": 1.5, "count": 3}\n', "visible before the file is closed"
        log.write(50, {"train/loss": 0.25})
    assert read_metrics(path) == [{"step": 25, "train/loss": 1.5, "count": 3}, {"step": 50, "train/loss": 0.25}]


def test_new_log_forgets_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    MetricLog(path).close()
    assert path.read_text() == ""


def test_resumed_log_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with MetricLog(whole) as log:
        for step in range(10):
            log.write(step, {"loss": 1 / (step + 1)})
    with MetricLog(cut) as log:
        for step in range(7):
            log.write(step, {"loss": 1 / (step + 1)})
    with cut.open("a") as stream:
        stream.write('{"step": 7, "lo')  # killed in the middle of a line
    with MetricLog(cut, resume_step=4) as log:
        for step in range(5, 10):
            log.write(step, {"loss": 1 / (step + 1)})
    assert cut.read_bytes() == whole.read_bytes()


def test_resuming_without_a_file_starts_one(tmp_path: Path) -> None:
    with MetricLog(tmp_path / "new.jsonl", resume_step=4) as log:
        log.write(5, {"loss": 1.0})
    assert [line["step"] for line in read_metrics(tmp_path / "new.jsonl")] == [5]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_number_that_is_none_is_refused_by_step_and_key(tmp_path: Path, value: float) -> None:
    with MetricLog(tmp_path / "m.jsonl") as log, pytest.raises(SamaError, match=rf"step 75: train/loss is {value}"):
        log.write(75, {"accuracy": 1.0, "train/loss": value})
    assert (tmp_path / "m.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"step": 1}\n{"ste', "line 2: not valid JSON"), ('{"loss": 1}', "line 1: expected an object with an integer")],
)
def test_damaged_file_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(SamaError, match=rf"m.jsonl, {message}"):
        read_metrics(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SamaError, match=r"none.jsonl: missing"):
        read_metrics(tmp_path / "none.jsonl")


def test_progress_in_a_log_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    with Progress(1000, "retrain full") as progress:
        for step in range(1, 1001):
            clock[0] += 0.02  # 20 s in all: the limit is 5 s
            progress.update(step, loss=step / 3)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "retrain full: step 251/1000 (25 %) loss=83.67",
        "retrain full: step 502/1000 (50 %) loss=167.3",
        "retrain full: step 753/1000 (75 %) loss=251",
        "retrain full: step 1000/1000 (100 %) loss=333.3",
    ]


def test_slow_progress_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    with Progress(100_000, "meta-train", start=500) as progress:
        for step in range(501, 701):
            clock[0] += 1.0
            progress.update(step)
    steps = [560, 620, 680]
    assert stream.getvalue().splitlines() == [f"meta-train: step {step}/100000 (0 %)" for step in steps]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(10, "meta-train") as progress:
            progress.update(10, loss=0.5)
        drawn = ""
        while "10/10" not in drawn:
            assert select.select([ours], [], [], 5)[0], drawn
            drawn += os.read(ours, 65536).decode()
    os.close(ours)
    assert "meta-train" in drawn
    assert "loss=0.5" in drawn
    assert "\x1b[" in drawn


def test_a_silent_progress_says_nothing(capsys):
    for silent in (False, True):
        with Progress(1, "pass", silent=silent) as progress:
            progress.update(1)
        assert ("pass" in capsys.readouterr().err) is not silent
