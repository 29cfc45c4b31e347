"""The name of a job: the same for the same work, another for any other."""

import os
from pathlib import Path

import pytest

from sama.launch.naming import name_of

ARGUMENTS = ["retrain", "--config", "a.yaml", "--images", "images", "--manifest", "m", "--out", "out", "--work", "work"]
BASE = {"a.yaml": "training: {steps: 7}\n", "images": "pixels", "m/inside": "rows"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(BASE)
    return tmp_path


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)


@pytest.mark.parametrize(
    "files",
    [
        {"out": "results"},
        {"work": "checkpoints"},
        {"a.yaml": "training: {steps: 7}\nruntime: {workers: 7}\n"},
        {"a.yaml": "training: {steps: 7}\nlauncher: {kind: inline}\n"},
        {"a.yaml": "training: {steps: 7}\nmeta: {unroll_steps: 5}\nseeds: [9]\n"},
    ],
)
def test_what_changes_no_result_changes_no_name(files: dict[str, str]) -> None:
    before = name_of(ARGUMENTS)
    write(files)
    assert name_of(ARGUMENTS) == before


@pytest.mark.parametrize(
    "files",
    [
        {"images": "other pixels"},
        {"m/inside": "other rows"},
        {"m/another": "rows"},
        {"a.yaml": "training: {steps: 8}\n"},
        {"a.yaml": "training: {steps: 7}\nruntime: {threads: 2}\n"},
    ],
)
def test_what_changes_the_result_changes_the_name_but_not_the_place(files: dict[str, str]) -> None:
    before = name_of(ARGUMENTS)
    write(files)
    after = name_of(ARGUMENTS)
    assert after.job != before.job
    assert after.place == before.place


def test_another_place_is_another_job(folder: Path) -> None:
    names = [name_of(ARGUMENTS), name_of([*ARGUMENTS, "--seed", "1"]), name_of([*ARGUMENTS[:-1], "elsewhere"])]
    (folder / "clone").mkdir()
    os.chdir(folder / "clone")
    write(BASE)
    names.append(name_of(ARGUMENTS))
    assert len({name.job for name in names}) == 4
    assert [name.place == names[0].place for name in names] == [True, True, False, False]


def test_methods_beside_the_one_of_the_job_do_not_count() -> None:
    arguments = ["score", "--config", "a.yaml", "--images", "images", "--method", "random", "--out", "out"]
    write({"a.yaml": "scores: {methods: [random]}\n"})
    before = name_of(arguments)
    write({"a.yaml": "scores: {methods: [random, el2n]}\n"})
    assert name_of(arguments) == before
