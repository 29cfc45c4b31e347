"""The order of the tests, their threads, and which may be skipped.

Without a CUDA device those marked `gpu` are skipped; where CI=true only those that `tests/allowed_skips.txt` lists, in
lines `NODE-ID-GLOB: REASON`; the reason must stand in the test's own.
"""

import os
import signal
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: several processes share the cores

from tests.toy_pipeline import Toy

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
CI = os.environ.get("CI") == "true"


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    """A folder with a stage and a Snakefile of its own; what a test leaves running is killed."""
    folder = Toy(tmp_path)
    yield folder
    folder.clean_up()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # whole pipelines first, or the other processes of xdist would wait for them at the end
    items.sort(key=lambda item: "/workflow/" not in item.nodeid)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


class SkipPolicy:
    """Fails a run in which a test was skipped that is not on the list."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        self.allowed = [tuple(part.strip() for part in line.split(": ", 1)) for line in lines]
        for line in self.allowed:
            if len(line) != 2 or not line[1]:
                raise pytest.UsageError(f"{ALLOWED.name}: expected 'NODE-ID-GLOB: REASON', got {line[0]!r}")
        self.forbidden: list[str] = []

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
            if not any(fnmatchcase(report.nodeid, glob) and why in reason for glob, why in self.allowed):
                self.forbidden.append(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")

    pytest_runtest_logreport = _see
    pytest_collectreport = _see

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.forbidden and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.forbidden:
            terminalreporter.write_line(f"SKIPPED, but not in {ALLOWED.name}: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    # a shell that starts this in the background has SIGINT ignored, and so would all that the tests start and interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if CI:
        config.pluginmanager.register(SkipPolicy(ALLOWED.read_text(encoding="utf-8")), "sama-skip-policy")
