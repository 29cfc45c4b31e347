"""What each stage depends on: the sections of the configuration that it takes and the modules of `sama` that it runs.

`workflow/stages.yaml` lists both for every `sama/stages/NAME.py`, found by reading the source and never by running it.
The rules take a stage's modules as inputs and its sections as parameters, so an edit re-runs the stages it can change
and no others; `dvc.yaml` names the same modules, phase by phase.

    python -m workflow.stages            rewrite stages.yaml and the `deps` of dvc.yaml
    python -m workflow.stages --check    say what has drifted, and exit with 1
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypedDict

import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "sama"
PHASES = {
    "prepare": ("prepare",),
    "search": ("meta_train", "observe", "score"),
    "select": ("select",),
    "suspects": ("suspects",),
    "retrain": ("retrain",),
    "evaluate": ("evaluate", "summarize"),
    "report": ("report",),
    "texts_prepare": ("prepare_texts",),
    "texts_finetune": ("tune", "finetune"),
    "texts_evaluate": ("evaluate_texts", "summarize_texts", "suspect_texts", "export_text"),
    "texts_report": ("report_texts",),
}
NEVER_PARAMETERS = ("launcher",)  # who carries a job must not decide whether it runs again
UNRECORDED = {
    "track": "the MLflow database is state of the machine, not a result",
    "track_texts": "the same",
}
HEADER = "# Written by `python -m workflow.stages`: the config sections and the modules of each stage.\n"


class Stage(TypedDict):
    """What one stage depends on: names of config sections, and source files relative to the repository."""

    sections: list[str]
    modules: list[str]


def load(root: Path = ROOT) -> dict[str, Stage]:
    """The committed list, stage name -> what it depends on. Cheap: the workflow reads it whenever it starts."""
    return yaml.safe_load((root / "workflow" / "stages.yaml").read_text(encoding="utf-8"))


def scan(root: Path = ROOT) -> dict[str, Stage]:
    """The same list, found anew from the sources below `root`."""
    sections = config_sections(root)
    return {
        path.stem: Stage(sections=stage_sections(path, sections), modules=imported_modules(path, root))
        for path in sorted((root / PACKAGE / "stages").glob("*.py"))
        if not path.stem.startswith("_")
    }


WORKLOADS = ("Config", "TextsConfig")  # the classes of whole configurations


def config_sections(root: Path) -> dict[str, dict[str, str]]:
    """Workload class -> class name of a section -> its key in the configuration, in the order of the class."""
    path = root / PACKAGE / "config" / "__init__.py"
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name in WORKLOADS:
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            found[node.name] = {
                name: field.target.id
                for field in fields
                for name in _names(field.annotation)
                if name.endswith("Config") and isinstance(field.target, ast.Name)
            }
    if missing := [name for name in WORKLOADS if name not in found]:
        raise ValueError(f"{path}: expected a class {missing[0]}, got none")
    return found


def stage_sections(path: Path, workloads: dict[str, dict[str, str]]) -> list[str]:
    """Config keys of the sections that the stage's `run` takes; a whole configuration for all but the launcher's."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "run":
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            taken = {name for argument in arguments if argument.annotation for name in _names(argument.annotation)}
            keys = (
                key
                for whole, sections in workloads.items()
                for name, key in sections.items()
                if name in taken or (whole in taken and key not in NEVER_PARAMETERS)
            )
            return list(dict.fromkeys(keys))
    raise ValueError(f"{path}: expected a function run(*, ...), got none")


def _names(annotation: ast.expr) -> Iterator[str]:
    """The class names in an annotation: `X`, `m.X`, `X | None`, `list[X]`, and any of them quoted."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _names(ast.parse(node.value, mode="eval").body)


def imported_modules(path: Path, root: Path) -> list[str]:
    """`path` and every module of the package that running it may import, as sorted paths relative to `root`.

    Followed are imports at any depth of a file, lazy ones inside functions included, and with each module its parent
    packages, whose `__init__.py` runs first.
    """
    found: set[Path] = set()
    waiting = [*_files(_dotted(path, root), root)]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            for name in _imports(current, root):
                waiting.extend(_files(name, root))
    return sorted(file.relative_to(root).as_posix() for file in found)


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _files(name: str, root: Path) -> Iterator[Path]:
    """Files that `import name` runs: those of the parent packages and its own. Unknown tails are attributes."""
    parts = name.split(".")
    for stop in range(1, len(parts) + 1):
        base = root.joinpath(*parts[:stop])
        for candidate in (base / "__init__.py", base.with_suffix(".py")):
            if candidate.is_file():
                yield candidate


def _imports(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted names of the package's modules (or of their attributes) that the file at `path` imports."""
    return _imports_in(path.read_text(encoding="utf-8"), path.relative_to(root))


@cache  # most stages import most modules: each is parsed once
def _imports_in(text: str, path: Path) -> tuple[str, ...]:
    found = []
    for node in ast.walk(ast.parse(text, str(path))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, path)
            found += [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            found.append(_literal(node, path))
    return tuple(name for name in found if name.split(".")[0] == PACKAGE)


def _base(node: ast.ImportFrom, path: Path) -> str:
    """The module that `from ... import` in the file `path` starts from, with leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    package = path.parent.parts
    parts = package[: len(package) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _literal(node: ast.Call, path: Path) -> str:
    """The module named in `import_module("…")`; a computed name cannot be followed, so it is refused."""
    first = node.args[0] if node.args else None
    if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
        return first.value
    raise ValueError(f"{path}:{node.lineno}: expected import_module with a module written out, got {ast.unparse(node)}")


def stages_text(stages: dict[str, Stage]) -> str:
    """`stages` as the text of stages.yaml."""
    return HEADER + yaml.safe_dump(dict(stages), sort_keys=False, default_flow_style=False, indent=2)


def dvc_text(text: str, stages: dict[str, Stage]) -> str:
    """The text of dvc.yaml with each phase's package files replaced by the modules of its stages.

    Only lines `- sama/….py` change, and they stand first below `deps:`; everything else, comments too, is kept.
    """
    phase: str | None = None
    lines: list[str] = []
    written: set[str] = set()
    for line in text.splitlines():
        if line.startswith("  ") and line[2:3].strip() and line.rstrip().endswith(":"):
            phase = line.strip()[:-1]
        if line.strip().startswith(f"- {PACKAGE}/") and line.strip().endswith(".py"):
            continue
        lines.append(line)
        if line == "    deps:" and phase in PHASES:
            modules = {module for name in PHASES[phase] if name in stages for module in stages[name]["modules"]}
            lines.extend(f"      - {module}" for module in sorted(modules))
            written.add(phase)
    missing = [phase for phase in PHASES if phase not in written]
    if missing:
        raise ValueError(f"dvc.yaml: expected a stage {missing[0]} with a block 'deps:', got none")
    return "\n".join(lines) + "\n"


def unassigned(stages: dict[str, Stage]) -> list[str]:
    """Stages that no phase of dvc.yaml records, though they should be."""
    assigned = {name for names in PHASES.values() for name in names} | set(UNRECORDED)
    return sorted(set(stages) - assigned)


def main(arguments: list[str] | None = None) -> int:
    """Rewrite stages.yaml and dvc.yaml, or only compare them with the sources; 1 if they differ."""
    parser = argparse.ArgumentParser(prog="python -m workflow.stages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a file has drifted")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository (default: this one)")
    options = parser.parse_args(arguments)
    root = options.root.resolve()
    stages = scan(root)
    strays = unassigned(stages)
    if strays:
        print(f"stage {strays[0]}: in no phase; add it to PHASES or UNRECORDED in workflow/stages.py", file=sys.stderr)
        return 1
    dvc = root / "dvc.yaml"
    expected = {root / "workflow" / "stages.yaml": stages_text(stages)}
    if dvc.exists():
        expected[dvc] = dvc_text(dvc.read_text(encoding="utf-8"), stages)
    drifted = [path for path, text in expected.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in drifted:
        if options.check:
            print(f"{path.relative_to(root)}: drifted from the sources; run python -m workflow.stages", file=sys.stderr)
        else:
            path.write_text(expected[path], encoding="utf-8")
            print(f"{path.relative_to(root)}: rewritten")
    return 1 if options.check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
