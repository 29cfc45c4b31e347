"""Imports run one way, and the numeric rooms do not know the pipeline."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sama

ROOT = Path(sama.__file__).parent
LAYERS = [
    {"adaptation"},
    {"hypergradient"},
    {"bilevel", "interruption"},
    {
        "tracking",
        "training",
        "meta_training",
        "images",
        "texts",
        "measures",
        "finetuning",
        "observation",
        "selection",
        "scores",
        "programs",
        "data",
        "networks",
        "hub",
        "report",
    },
    {"stages"},
    {
        "launch",
        "command",
        "pipeline",
        "doctor",
        "own_columns",
        "own_data",
        "own_images",
        "own_texts",
        "own_texts_config",
        "cli",
    },
]
BESIDE = {"config", "files", "errors", "guard", "metrics", ""}  # used by the upper layers; "" is sama itself
NUMERIC = {
    "adaptation",
    "hypergradient",
    "bilevel",
    "programs",
    "networks",
    "training",
    "meta_training",
    "images",
    "texts",
    "measures",
    "finetuning",
    "observation",
    "scores",
    "selection",
}
OUTSIDE = {"pydantic", "pyarrow", "click", "mlflow", "submitit", "snakemake", "dvc", "yaml", "rich", "pandas"}
LAYER = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(dotted: str) -> str:
    part = dotted.split(".")[1] if "." in dotted else ""
    return part if part in LAYER or part in BESIDE else ""


def file_room(path: Path) -> str:
    return room_of(".".join(("sama", *path.relative_to(ROOT).with_suffix("").parts)))


FILES = [(path, file_room(path)) for path in sorted(ROOT.rglob("*.py"))]


@pytest.mark.parametrize(("path", "room"), FILES, ids=lambda v: str(v.relative_to(ROOT)) if isinstance(v, Path) else v)
def test_imports_run_one_way(path, room):
    for name in imports(path):
        if name.split(".")[0] == "sama":
            other = room_of(name)
            if room in LAYER and other in LAYER:
                assert LAYER[other] <= LAYER[room], f"{path.name} imports {name}"
            if room in BESIDE:
                assert other not in LAYER, f"{path.name} imports {name}"
            if room in NUMERIC:
                assert other not in BESIDE - {""}, f"{path.name} imports {name}"
        elif room in NUMERIC:
            assert name.split(".")[0] not in OUTSIDE, f"{path.name} imports {name}"


def test_every_file_has_a_room():
    assert {p.stem for p in ROOT.glob("*.py")} - {"__init__"} <= set(LAYER) | BESIDE
    assert {p.name for p in ROOT.iterdir() if (p / "__init__.py").is_file()} <= set(LAYER) | BESIDE


@pytest.mark.parametrize(("package", "home"), [("mlflow", "tracking"), ("submitit", "launch")])
def test_one_room_knows_the_tool(package, home):
    users = {room for path, room in FILES if any(name.split(".")[0] == package for name in imports(path))}
    assert users == {home}


def test_the_core_needs_torch_alone():
    blocked = sorted({*OUTSIDE, "timm", "torchvision", "sklearn"})
    code = (
        f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
        "import sama.bilevel.loop, sama.hypergradient, sama.adaptation, sama.programs.reweight\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("stage", ["select", "score", "summarize", "prepare", "track", "report"])
def test_stages_that_train_nothing_do_not_wait_for_torch(stage):
    code = f"import sys, sama.stages.{stage}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_importing_sama_costs_nothing():
    code = "import sys, sama\nprint(sorted(set(sys.modules) & {'torch', 'mlflow', 'pandas', 'submitit', 'snakemake'}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
