"""The content hash that names a job: the same work has the same name, whoever asks for it and however often."""

import ast
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sama.config
from sama import cli
from sama.config.base import Section
from sama.errors import SamaError
from sama.files import sha256
from sama.stages._keys import source_hash

OUTPUTS = ("out", "summary")  # the options of a stage that name its results
WRITTEN = (*OUTPUTS, "work")  # and all that it writes; other paths are read
LENGTH = 16


@dataclass(frozen=True)
class Name:
    """What a job is called.

    Attributes:
        stage: as the command line knows it.
        content: hash of all that the result depends on.
        place: hash of where the result goes. Two jobs of one place but other content must not run side by side.
    """

    stage: str
    content: str
    place: str

    @property
    def job(self) -> str:
        """The job's name in Slurm."""
        return f"sama-{self.stage}-{self.content}"


def name_of(arguments: Sequence[str]) -> Name:
    """The name of the job that runs `STAGE OPTIONS…` in this folder.

    The content is a hash of the folder, the arguments as they are given, the sections of the configuration that the
    stage takes, the content of the files and folders that it reads, and the source of the package.

    Raises:
        SamaError: the configuration, or a file, cannot be read.
    """
    stage, *rest = arguments
    here = str(Path.cwd())
    read = [value for option, value in options(rest) if option not in (*WRITTEN, "config")]
    written = [value for option, value in options(rest) if option in WRITTEN]
    parts = [here, json.dumps(list(arguments)), json.dumps(sections(arguments), sort_keys=True), source_hash()]
    for value in read:
        parts += content(Path(value))
    return Name(stage, sha256(*parts)[:LENGTH], sha256(here, stage, *written)[:LENGTH])


def options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of every value in `--option value…`; an option may have several."""
    option = ""
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument[2:].partition("=")
            if equals:
                yield option, value
        else:
            yield option, argument


def content(path: Path) -> list[str]:
    """Hashes of a file, or of each file in a folder with its path there; nothing where there is neither."""
    try:
        if path.is_file():
            return [sha256(path)]
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            return [part for file in inside for part in (str(file.relative_to(path)), sha256(file))]
    except OSError as error:
        raise SamaError(f"{path}: cannot be read ({error.strerror})") from error
    return []


def sections(arguments: Sequence[str]) -> dict[str, Any]:
    """The sections of the configuration that a stage takes, without what changes no result.

    They are read from the source of the stage: to import it would load torch into a process that only waits.
    """
    wanted = _section_names(cli.STAGES[arguments[0]].module)
    if not wanted:
        return {}
    loaded = sama.config.load_any(cli.config_paths(arguments)).model_dump(mode="json")
    del loaded["runtime"]["workers"]
    found = {name: loaded[name] for name in wanted if name in loaded}
    for section in found.values():
        section.pop("methods", None)  # which methods there are; the one of this job is an argument
    return found


def _section_names(module: str) -> list[str]:
    """The arguments of the module's `run` whose annotation is a section of the configuration."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SamaError(f"{module}: the stage's module is missing")
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    runs = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run"]
    return [argument.arg for node in runs for argument in node.args.kwonlyargs if _is_section(argument.annotation)]


def _is_section(annotation: ast.expr | None) -> bool:
    kind = getattr(sama.config, annotation.id, None) if isinstance(annotation, ast.Name) else None
    return isinstance(kind, type) and issubclass(kind, Section)
