"""The command line: options from signatures, one-line errors, exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from sama import cli
from sama.command import stage_command
from tests.toy_pipeline import PYTHON, REPOSITORY, Toy


def written(toy: Toy) -> dict[str, Any]:
    import pathlib

    return eval((toy.folder / "out.txt").read_text(), {"PosixPath": pathlib.Path, "Path": pathlib.Path})


def sama(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, "-m", "sama.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_help_lists_the_stages_in_order_and_imports_next_to_nothing() -> None:
    code = "import sys\nfrom sama import cli\ncli.run(['--help'])\nprint(*sys.modules)"
    shown = subprocess.run([PYTHON, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    text, modules = shown.rsplit("\n", 2)[0], set(shown.rsplit("\n", 2)[1].split())
    names = [line.split()[0] for line in text.splitlines() if line.startswith("  ") and not line.startswith("   ")]
    stages = ["prepare", "meta-train", "observe", "score", "select", "suspects", "retrain", "evaluate", "summarize"]
    texts = ["prepare-texts", "tune", "finetune", "evaluate-texts", "summarize-texts", "suspect-texts", "export-text"]
    stages += ["report", *texts, "report-texts", "track", "track-texts"]
    both = [*stages, "init", "launch", "config", "pipeline", "doctor"]
    assert [name for name in names if name in both] == both
    assert set(both) == {*cli.STAGES, *cli.TOOLS}
    heavy = {"torch", "pandas", "numpy", "pydantic", "yaml", "rich", "mlflow", "submitit", "snakemake", "dvc"}
    assert not heavy & modules


def test_options_are_made_from_the_signature(toy: Toy) -> None:
    shown = toy.run("toy", "--help").stdout
    assert "Write what it was given." in shown
    for option in ("--out PATH", "--seeds INTEGER,...", "--ratio FLOAT", "--wanted / --no-wanted", "--config PATH"):
        assert option in shown
    assert "the file that is written  [required]" in shown
    assert "replicates  [default: 0]" in shown
    assert "--training" not in shown
    assert "--data-root" not in shown


def test_defaults_of_run_are_the_defaults(toy: Toy) -> None:
    assert toy.run("toy", "--out", "out.txt").returncode == 0
    assert written(toy) == {
        "steps": 400,
        "threads": "1",
        "root": None,
        "seeds": (0,),
        "ratios": (0.5,),
        "files": (),
        "ratio": None,
        "wanted": False,
        "gpus": None,
        "torch": False,
    }


def test_values_arrive_with_their_types(toy: Toy) -> None:
    arguments = ["--out", "out.txt", "--seeds", "3,4", "--ratios", "0.3", "0.7", "--files", "a.txt", "b,c.txt"]
    arguments += ["--ratio", "0.25", "--wanted"]
    result = toy.run("toy", *arguments)
    assert result.returncode == 0, result.stderr
    got = written(toy)
    assert got["seeds"] == (3, 4)
    assert got["ratios"] == (0.3, 0.7)
    assert got["files"] == (Path("a.txt"), Path("b,c.txt"))
    assert (got["ratio"], got["wanted"]) == (0.25, True)


def test_sections_threads_and_data_root_come_from_the_config_files(toy: Toy) -> None:
    (toy.folder / "one.yaml").write_text("training: {steps: 7}\nruntime: {threads: 3}\ndata_root: /from/config\n")
    (toy.folder / "two.yaml").write_text("training: {steps: 8}\n")
    arguments = ["toy", "--out", "out.txt", "--config", "one.yaml", "--config=two.yaml"]
    assert toy.run(*arguments, SAMA_DATA_DIR="/from/environment").returncode == 0
    got = written(toy)
    assert (got["steps"], got["threads"], got["root"]) == (8, "3", Path("/from/config"))
    assert toy.run("toy", "--out", "out.txt", SAMA_DATA_DIR="/from/environment").returncode == 0
    assert written(toy)["root"] == Path("/from/environment")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["toy", "--mode", "mendable"], 1, "sama toy: the label 7 of row 3 is outside of 0..4"),
        (["toy", "--out", "absent/../x/y/z.txt", "--config", "no.yaml"], 1, "sama toy: config file no.yaml: cannot be"),
        (["toy", "--mode", "full"], 1, "sama toy: "),
        (["toy", "--mode", "interrupt"], 130, "sama toy: interrupted"),
        (["toy", "--mode", "odd"], 2, "sama toy: Invalid value for '--mode'"),
        (["toy", "--seeds", "0,one"], 2, "sama toy: Invalid value for '--seeds': 'one' is not a valid integer."),
        (["toy", "--colour", "red"], 2, "sama toy: No such option '--colour'"),
        (["tyo"], 2, "sama: No such command 'tyo'"),
        (["launch", "--", "tyo"], 1, "sama launch: unknown stage 'tyo', expected one of prepare, meta-train"),
    ],
)
def test_what_a_user_can_mend_is_one_line(toy: Toy, arguments: list[str], code: int, message: str) -> None:
    if arguments[0] == "toy" and "--out" not in arguments:
        arguments = [*arguments, "--out", "out.txt"]
    result = toy.run(*arguments)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith(message)
    assert len(result.stderr.splitlines()) == (2 if "mendable" in arguments else 1)
    assert not (toy.folder / "out.txt").exists()


def test_missing_option_is_named(toy: Toy) -> None:
    result = toy.run("toy")
    assert result.returncode == 2
    assert result.stderr == "sama toy: Missing option '--out'. (see sama toy --help)\n"


def test_folder_without_permission_or_parent_is_named(toy: Toy) -> None:
    (toy.folder / "file").write_text("not a folder")
    result = toy.run("toy", "--out", "file/out.txt")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "file/out.txt: cannot be read or written (" in result.stderr


def test_mistake_of_ours_shows_its_traceback(toy: Toy) -> None:
    for mode, last in (("bug", "RuntimeError: a mistake of ours"), ("eof", "EOFError: a short file")):
        result = toy.run("toy", "--out", "out.txt", "--mode", mode)
        assert result.returncode == 1
        assert result.stderr.startswith("Traceback")
        assert result.stderr.splitlines()[-1] == last


def test_debugging_shows_every_traceback(toy: Toy) -> None:
    result = toy.run("toy", "--out", "out.txt", "--mode", "mendable", SAMA_DEBUG="1")
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("sama toy: the label 7")


def test_config_show_merges_over_the_default(toy: Toy) -> None:
    (toy.folder / "o.yaml").write_text("training: {steps: 7}\n")
    plain, described = (toy.run("config", "show", "o.yaml", *flag) for flag in ([], ["--describe"]))
    assert plain.returncode == described.returncode == 0
    content = yaml.safe_load(plain.stdout)
    assert content["training"]["steps"] == 7
    assert content["runtime"]["threads"] == 1
    assert yaml.safe_load(described.stdout) == content
    assert "  # optimizer steps on the whole training split\n  steps: 7\n" in described.stdout
    assert "#" not in plain.stdout


def test_config_check_names_a_wrong_key(toy: Toy) -> None:
    assert toy.run("config", "check").stdout == "config of experiment digits_pruning: valid\n"
    (toy.folder / "o.yaml").write_text("training: {stepz: 7}\n")
    result = toy.run("config", "check", "o.yaml")
    assert result.returncode == 1
    assert result.stderr.startswith("sama config: o.yaml: unknown key training.stepz")


def test_config_schema_is_printed_or_written(toy: Toy) -> None:
    printed = toy.run("config", "schema").stdout
    assert {"Config", "TextsConfig"} <= set(json.loads(printed)["$defs"])
    assert toy.run("config", "schema", "--output", "schema.json").returncode == 0
    assert (toy.folder / "schema.json").read_text() == printed


def test_closed_pipe_is_no_error(toy: Toy) -> None:
    process = toy.start("bash", "-c", f"{PYTHON} program.py config show | true; echo ${{PIPESTATUS[0]}}")
    output, errors = process.communicate(timeout=30)
    assert output in ("0\n", "1\n", "141\n")
    assert errors == ""


def test_argument_of_an_unknown_type_is_a_mistake_of_the_stage() -> None:
    def run(*, table: dict[str, int]) -> None:
        """Take a table."""

    with pytest.raises(TypeError, match=r"a stage option cannot be a dict\[str, int\]"):
        stage_command("odd", run, cli.DEFAULT_CONFIG)


def test_config_paths_see_every_spelling() -> None:
    paths = cli.config_paths(["--out", "x", "--config", "a.yaml", "b.yaml", "--seed", "0", "--config=c.yaml"])
    assert paths == [Path("a.yaml"), Path("b.yaml"), Path("c.yaml")]
    assert cli.config_paths(["--out", "x"]) == [cli.DEFAULT_CONFIG]


def test_every_stage_has_a_command_whose_options_are_described() -> None:
    group = cli.Commands()
    for name in cli.STAGES:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.help, name
        for option in command.params:
            assert isinstance(option, click.Option)
            assert option.help, f"sama {name} {option.opts[0]} has no line under Args:"


def test_version() -> None:
    assert sama("--version").stdout.startswith("sama 0.")
    assert sys.version_info >= (3, 11)
