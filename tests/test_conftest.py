"""The list of allowed skips, tried on a small test folder of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.toy_pipeline import PYTHON, REPOSITORY

TESTS = """
import pytest

@pytest.mark.parametrize("n", [1, 2])
def test_of_a_browser(n):
    pytest.skip("chromium is not installed")

def test_that_runs():
    pass

@pytest.mark.xfail
def test_expected_to_fail():
    raise ValueError
"""


def outcome(
    folder: Path, allowed: str, ci: str = "true", tests: str = TESTS, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    (folder / "suite").mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "tests/conftest.py", folder / "suite/conftest.py")
    (folder / "suite/allowed_skips.txt").write_text(allowed)
    (folder / "suite/test_toy.py").write_text(tests)
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(REPOSITORY)}
    command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", *more, "suite"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("allowed", "named"),
    [
        ("# nothing\n", [1, 2]),
        ("suite/test_toy.py::test_of_a_browser?1?: chromium is not installed\n", [2]),
        ("suite/test_toy.py::*: chromium\n", []),
        ("suite/test_toy.py::*: no network\n", [1, 2]),
        ("suite/other.py::*: chromium is not installed\n", [1, 2]),
    ],
)
def test_skip_fails_ci_unless_its_name_and_reason_are_listed(tmp_path: Path, allowed: str, named: list[int]) -> None:
    result = outcome(tmp_path, allowed)
    assert result.returncode == (1 if named else 0), result.stdout
    told = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED, but not in")]
    assert told == [
        f"SKIPPED, but not in allowed_skips.txt: suite/test_toy.py::test_of_a_browser[{n}]: chromium is not installed"
        for n in named
    ]


def test_skipped_file_counts_too(tmp_path: Path) -> None:
    result = outcome(tmp_path, "", tests="import pytest\npytest.importorskip('absent_module')\n")
    assert result.returncode != 0
    assert "SKIPPED, but not in allowed_skips.txt: suite/test_toy.py: could not import 'absent_module'" in result.stdout


def test_a_skip_in_another_process_is_seen(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite/test_absent.py").write_text("import pytest\npytest.importorskip('absent_module')\n")
    result = outcome(tmp_path, "suite/test_toy.py::*1?: chromium\n", more=("-n", "1", "--dist", "loadfile"))
    assert result.returncode != 0
    told = [line for line in result.stdout.splitlines() if line.startswith("SKIPPED, but not in")]
    where = "SKIPPED, but not in allowed_skips.txt: suite"
    assert sorted(line.removeprefix(where)[:40] for line in told) == [
        "/test_absent.py: could not import 'absen",
        "/test_toy.py::test_of_a_browser[2]: chro",
    ]


def test_skips_are_free_outside_of_ci(tmp_path: Path) -> None:
    assert outcome(tmp_path, "", ci="").returncode == 0


def test_line_without_a_reason_is_refused(tmp_path: Path) -> None:
    result = outcome(tmp_path, "suite/test_toy.py::*\n")
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "allowed_skips.txt: expected 'NODE-ID-GLOB: REASON', got 'suite/test_toy.py::*'" in result.stderr
