"""Numbers of a run as it goes: `metrics.jsonl` for machines, a progress bar or plain lines for people."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sama.errors import SamaError
from sama.files import write_text

LINE_SECONDS = 5.0
QUIET_SECONDS = 60.0


class MetricLog:
    """Appends flat JSON lines `{"step": …, NAME: NUMBER, …}`, each on the disk's side as soon as it is written.

    No clock goes into the file, so the same training gives the same bytes, interrupted or not.

    Args:
        path: the file; its folder is made.
        resume_step: None starts a new file; a number keeps the lines up to and including that step of an existing one
            (what a run wrote after its last checkpoint, it will write again).
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        kept: list[dict[str, Any]] = []
        if resume_step is not None and self.path.exists():
            kept = [line for line in _complete_lines(self.path) if line["step"] <= resume_step]
        write_text(self.path, "".join(_line(line) for line in kept))
        self._stream = self.path.open("a", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float | int]) -> None:
        """Append one line.

        Raises:
            SamaError: a value is NaN or infinite; names the step and the key.
        """
        for key, value in values.items():
            if not math.isfinite(value):
                raise SamaError(f"step {step}: {key} is {value}, expected a finite number")
        self._stream.write(_line({"step": int(step), **values}))
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics file, in order.

    Raises:
        SamaError: the file is missing, or a line is not a JSON object with a step; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SamaError(f"{path}: missing") from error
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise SamaError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("step"), int):
            raise SamaError(f"{path}, line {number}: expected an object with an integer step, got {line[:80]}")
        lines.append(content)
    return lines


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file whose writer may have been killed in the middle of the last one."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, allow_nan=False) + "\n"


class Progress:
    """A progress bar where standard error is a terminal, else plain lines.

    A line comes every 10 %, not within 5 s of the last one, and at least once a minute; the last step always has one.

    Args:
        total: steps in all.
        description: what is going on, e.g. `meta-train seed 0`.
        start: steps that an earlier, interrupted run has done.
        silent: say nothing.
    """

    def __init__(self, total: int, description: str, start: int = 0, *, silent: bool = False) -> None:
        self.total, self.description, self.step, self.silent = total, description, start, silent
        self._told_step, self._told_time = start, time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if not self.silent and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = _rich_bar()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.step, numbers="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, **numbers: float) -> None:
        """Say that `step` steps are done; `numbers` (loss=…, accuracy=…) are shown beside them."""
        self.step = step
        shown = " ".join(f"{name}={value:.4g}" for name, value in numbers.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, **({"numbers": shown} if shown else {}))
            return
        if self.silent:
            return
        now = time.monotonic()
        waited = now - self._told_time
        due = waited >= QUIET_SECONDS or (waited >= LINE_SECONDS and step - self._told_step >= self.total / 10)
        if due or step >= self.total > self._told_step:
            percent = 100 * step // max(self.total, 1)
            line = f"{self.description}: step {step}/{self.total} ({percent} %) {shown}"
            print(line.rstrip(), file=sys.stderr, flush=True)
            self._told_step, self._told_time = step, now


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
        console=Console(stderr=True),
    )
