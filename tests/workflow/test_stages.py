"""stages.yaml, the rules and dvc.yaml name the modules a stage really imports, and the sections it really takes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow import stages

ROOT = stages.ROOT

# Imports every stage in turn, forgetting the package in between; prints what that loaded and which sections it takes.
OBSERVE = """
import importlib, inspect, json, sys
seen = {}
for name in sys.argv[1:]:
    for module in [m for m in sys.modules if m.split(".")[0] == "sama"]:
        del sys.modules[module]
    run = importlib.import_module(f"sama.stages.{name}").run
    loaded = [m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "sama" and m.__file__]
    from sama.config import WORKLOADS
    taken = [p.annotation for p in inspect.signature(run, eval_str=True).parameters.values()]
    sections = []
    for whole in WORKLOADS.values():
        keys = {field.annotation: key for key, field in whole.model_fields.items()}
        every = [kind for kind in keys if inspect.isclass(kind) and kind.__name__.endswith("Config")]
        sections += [keys[kind] for kind in every if kind in taken or whole in taken]
    seen[name] = {"modules": loaded, "sections": sections}
print(json.dumps(seen))
"""

READING: dict[str, tuple[str, str] | None] = {  # method -> what its command line hands it, of seed 3
    "meta_weight": ("--weights", "results/digits_pruning/meta/seed3/weights.parquet"),
    "meta_weight_loss": ("--weights", "results/digits_pruning/meta/seed3/loss_only/weights.parquet"),
    "aum": ("--observed", "results/digits_pruning/scores/seed3/observed"),
    "random": None,
}


@pytest.fixture(scope="module")
def observed() -> dict[str, Any]:
    command = [sys.executable, "-c", OBSERVE, *stages.load()]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What Snakemake would do for experiments that need every rule: the scores read all that other stages make."""
    overlay = tmp_path_factory.mktemp("config") / "every_rule.yaml"
    overlay.write_text(yaml.safe_dump({"scores": {"methods": list(READING)}, "selection": {"strategy": "d2"}}))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--forceall", "--printshellcmds"]
    said = ""
    for file in (str(overlay), "config/texts.yaml"):
        done = subprocess.run([*command, "--configfile", file], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said += done.stdout + done.stderr
    return said


@pytest.fixture(scope="module")
def jobs(dry_run: str) -> dict[str, tuple[str, set[str]]]:
    """Rule -> the stage it calls and the modules of sama among its inputs, as Snakemake itself resolves them."""
    found: dict[str, tuple[str, set[str]]] = {}
    for block in re.split(r"^(?:rule|localrule|checkpoint) ", dry_run, flags=re.MULTILINE)[1:]:
        rule = block.split(":", 1)[0]
        inputs = re.search(r"^    input: (.*)$", block, flags=re.MULTILINE)
        command_line = re.search(r"-m sama\.cli (.*)$", block, flags=re.MULTILINE)
        if command_line and inputs:
            stage = command_line[1].split(" -- ")[-1].split()[0]  # behind what may carry it
            files = {item for item in inputs[1].split(", ") if item.startswith("sama/")}
            found[rule] = (stage.replace("-", "_"), files)
    return found


def test_a_score_is_handed_what_it_reads_and_d2_its_features(dry_run: str) -> None:
    commands = re.findall(r"-m sama\.cli (.*)$", dry_run, flags=re.MULTILINE)
    made = {word for line in commands for word in re.findall(r"--out (\S+)", line)}
    for method, words in READING.items():
        (line,) = (line for line in commands if f"--method {method} " in line and "/seed3/" in line)
        option = re.search(r"(--weights|--observed) (\S+)", line)
        assert (option.groups() if option else None) == words, method
        if words:
            assert words[1] in made or str(Path(words[1]).parent) in made, method
    chosen = [line for line in commands if " select " in f" {line}"]
    assert chosen
    for line in chosen:
        seed = re.search(r"--seed (\d+)", line)
        assert seed is not None
        assert f"--features results/digits_pruning/scores/seed{seed[1]}/observed/features.safetensors" in line


def test_nothing_has_drifted() -> None:
    assert stages.main(["--check"]) == 0


def test_every_stage_is_listed_and_recorded_in_a_phase() -> None:
    listed = stages.load()
    files = {path.stem for path in (ROOT / "sama" / "stages").glob("[!_]*.py")}
    assert set(listed) == files
    assert {name for names in stages.PHASES.values() for name in names} | set(stages.UNRECORDED) == files


def test_whatever_a_stage_loads_is_listed(observed: dict[str, Any]) -> None:
    for name, stage in stages.load().items():
        loaded = {Path(file).relative_to(ROOT).as_posix() for file in observed[name]["modules"]}
        assert loaded <= set(stage["modules"]), name
        assert f"sama/stages/{name}.py" in loaded


def test_sections_are_those_of_the_signature(observed: dict[str, Any]) -> None:
    for name, stage in stages.load().items():
        assert set(stage["sections"]) == set(observed[name]["sections"]) - set(stages.NEVER_PARAMETERS), name


def test_each_rule_takes_its_stage_s_modules_as_inputs(jobs: dict[str, tuple[str, set[str]]]) -> None:
    listed = stages.load()
    assert {stage for stage, _ in jobs.values()} == set(listed)
    for rule, (stage, files) in jobs.items():
        assert files == set(listed[stage]["modules"]), rule


def test_each_phase_of_dvc_depends_on_its_stages_modules() -> None:
    phases = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    listed = stages.load()
    assert list(phases) == list(stages.PHASES)
    for phase, names in stages.PHASES.items():
        modules = {module for name in names for module in listed[name]["modules"]}
        assert {dep for dep in phases[phase]["deps"] if dep.startswith("sama/")} == modules, phase


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("sama", "workflow"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


GAINS = {
    "at the top": "\nimport sama.guard\n",
    "lazily": "\ndef lazy():\n    from sama import guard\n    return guard\n",
    "relatively": "\ndef lazy():\n    from .. import guard\n    return guard\n",
    "an attribute": "\nif 1:\n    from sama.guard import hold_folder as _\n",
    "by name": "\nimport importlib\nx = importlib.import_module('sama.guard')\n",
}


@pytest.mark.parametrize("how", GAINS)
def test_an_import_gained_deep_down_is_drift(copy: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.main(["--check", "--root", str(copy)]) == 0
    module = copy / "sama" / "selection" / "__init__.py"
    module.write_text(module.read_text() + GAINS[how])
    assert stages.main(["--check", "--root", str(copy)]) == 1
    errors = capsys.readouterr().err
    assert "workflow/stages.yaml: drifted" in errors
    assert "dvc.yaml: drifted" in errors
    assert stages.main(["--root", str(copy)]) == 0
    assert stages.main(["--check", "--root", str(copy)]) == 0
    listed = stages.load(copy)
    assert "sama/guard.py" in listed["select"]["modules"]
    assert "sama/guard.py" not in listed["prepare"]["modules"]
    phases = yaml.safe_load((copy / "dvc.yaml").read_text())["stages"]
    assert [phase for phase in phases if "sama/guard.py" in phases[phase]["deps"]] == ["select"]


def test_a_section_gained_is_drift(copy: Path) -> None:
    module = copy / "sama" / "stages" / "select.py"
    text = module.read_text()
    assert "def run(\n    *,\n" in text or "def run(*, " in text
    changed = re.sub(r"def run\(\s*\*,", 'def run(*, data: "config.DataConfig | None" = None,', text, count=1)
    module.write_text(changed)
    assert stages.main(["--check", "--root", str(copy)]) == 1
    assert stages.scan(copy)["select"]["sections"] == ["data", "selection"]


def test_rewriting_keeps_the_rest_of_dvc_yaml(copy: Path) -> None:
    before = yaml.safe_load((copy / "dvc.yaml").read_text())
    (copy / "sama" / "selection" / "__init__.py").write_text("from sama import guard as _\n")
    stages.main(["--root", str(copy)])
    text = (copy / "dvc.yaml").read_text()
    assert text.startswith((ROOT / "dvc.yaml").read_text().splitlines()[0])
    after = yaml.safe_load(text)
    for phase in before["stages"].values():
        phase["deps"] = [dep for dep in phase["deps"] if not dep.startswith("sama/")]
    for phase in after["stages"].values():
        phase["deps"] = [dep for dep in phase["deps"] if not dep.startswith("sama/")]
    assert after == before


def test_a_new_stage_needs_a_phase(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "sama" / "stages" / "polish.py").write_text("def run(*, out): ...\n")
    assert stages.main(["--root", str(copy)]) == 1
    assert "stage polish: in no phase" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["importlib.import_module(name)", "import_module(f'sama.{name}')", "__import__(name)"])
def test_an_import_that_cannot_be_followed_is_refused(copy: Path, text: str) -> None:
    module = copy / "sama" / "selection" / "__init__.py"
    module.write_text(module.read_text() + f"\ndef load(name):\n    return {text}\n")
    with pytest.raises(ValueError, match=r"__init__\.py:\d+: expected import_module with a module written out"):
        stages.scan(copy)
