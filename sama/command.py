"""From the signature of a stage's `run` to a click command, and from a configuration to described YAML."""

import functools
import inspect
import os
import re
import textwrap
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import yaml

from sama.config import WORKLOADS, Config, TextsConfig, load_any
from sama.config.base import Section
from sama.errors import SamaError


class StageCommand(click.Command):
    """A command without positional arguments, whose list options take values as `--ids 1 2 3` or `--ids 1,2,3`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite `--name a b` of a repeatable option as `--name a --name b`."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        expanded: list[str] = []
        current: str | None = None
        fresh = False
        for argument in args:
            if argument == "-h" or (argument.startswith("--") and len(argument) > 2):
                current, fresh = (argument if argument in repeatable else None), True
                expanded.append(argument)
            elif current is not None and not fresh:
                expanded += [current, argument]
            else:
                expanded.append(argument)
                fresh = False
        return super().parse_args(ctx, expanded)


def stage_command(name: str, run: Callable[..., Any], default_config: Path) -> click.Command:
    """The command whose options are the keyword-only parameters of `run`.

    Parameters annotated with a section of the configuration come from `--config`, under their own name; `data_root`
    comes from the configuration or the environment. Calling the command parses; what it returns runs the stage.
    """
    summary, described = _docstring(run)
    parameters = list(inspect.signature(run, eval_str=True).parameters.values())
    sections = {p.name: p.annotation for p in parameters if _is_section(p.annotation)}
    takes_root = any(p.name == "data_root" for p in parameters)
    options: list[click.Parameter] = [
        _option(p, described.get(p.name, "")) for p in parameters if p.name not in sections and p.name != "data_root"
    ]
    options.append(
        click.Option(
            ["--config"],
            multiple=True,
            type=click.Path(path_type=Path),
            default=[default_config],
            show_default=True,
            help="Configuration file; repeat it to lay one over another.",
        )
    )

    def parsed(config: Sequence[Path], **values: Any) -> Callable[[], Any]:
        if sections or takes_root:
            loaded = load_any(config)
            values |= {key: _section(loaded, key, kind) for key, kind in sections.items()}
            if takes_root:
                root = loaded.data_root or os.environ.get("SAMA_DATA_DIR") or None
                values["data_root"] = None if root is None else Path(root)
        return functools.partial(run, **values)

    return StageCommand(name, params=options, callback=parsed, help=summary)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _section(config: Config | TextsConfig, name: str, kind: type[Section]) -> Section:
    if isinstance(config, kind):
        return config
    value = getattr(config, name, None)
    if isinstance(value, kind):
        return value
    other = next(model for model in WORKLOADS.values() if not isinstance(config, model))
    field = other.model_fields.get(name)
    if kind is other or (field is not None and field.annotation is kind):
        raise SamaError(f"config: this stage is not for workload {config.workload}: expected {_workload(other)}")
    raise TypeError(f"stage argument {name}: {kind.__name__}: the configuration has no such section of this name")


def _workload(model: type[Section]) -> str:
    return model.model_fields["workload"].default


def _option(parameter: inspect.Parameter, described: str) -> click.Option:
    kind, optional = _without_none(parameter.annotation)
    name = "--" + parameter.name.replace("_", "-")
    required = parameter.default is inspect.Parameter.empty
    settings: dict[str, Any] = {"help": described, "required": required}
    if not required:
        settings |= {"default": parameter.default, "show_default": parameter.default is not None}
    if kind is bool:
        return click.Option([f"{name}/--no-{name[2:]}", parameter.name], **settings)
    if get_origin(kind) in (tuple, list):
        element, *_ = get_args(kind)
        wanted = get_origin(kind)
        convert = _click_type(element)

        def collect(ctx: click.Context, option: click.Parameter, values: Sequence[Any] | None) -> Any:
            if values is None or (optional and not values):
                return None
            if element is Path:
                return wanted(values)
            pieces = [piece for value in values for piece in str(value).split(",") if piece]
            return wanted(convert.convert(piece, option, ctx) for piece in pieces)

        given = click.Path(path_type=Path) if element is Path else click.STRING
        metavar = "PATH..." if element is Path else f"{convert.name.upper()},..."
        return click.Option(
            [name, parameter.name], multiple=True, type=given, callback=collect, metavar=metavar, **settings
        )
    return click.Option([name, parameter.name], type=_click_type(kind), **settings)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0], True
    return annotation, False


def _click_type(kind: Any) -> click.ParamType:
    if get_origin(kind) is Literal:
        return click.Choice([str(choice) for choice in get_args(kind)])
    known = {Path: click.Path(path_type=Path), int: click.INT, float: click.FLOAT, str: click.STRING}
    if kind not in known:
        raise TypeError(f"a stage option cannot be a {kind!r}: expected Path, int, float, str, bool, Literal or tuple")
    return known[kind]


def _docstring(run: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """What stands before the sections of a docstring, and the text of each entry under `Args:`."""
    text = inspect.getdoc(run) or ""
    head, *rest = re.split(r"^(Args|Returns|Raises|Yields):\n", text, flags=re.MULTILINE)
    described: dict[str, str] = {}
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        if title == "Args":
            for entry in re.split(r"\n(?=\S)", textwrap.dedent(body).strip("\n")):
                key, _, value = entry.partition(":")
                described[key.split("(")[0].strip()] = " ".join(value.split())
    return head.strip(), described


def described_yaml(config: Config | TextsConfig) -> str:
    """The merged configuration as YAML, each key under its description as a comment."""
    return "\n".join(_described_lines(config, "")) + "\n"


def _described_lines(section: Section, indent: str) -> list[str]:
    lines: list[str] = []
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        comment = textwrap.wrap(field.description or "", width=110 - len(indent), break_on_hyphens=False)
        lines += [f"{indent}# {line}" for line in comment]
        if isinstance(value, Section):
            lines += [f"{indent}{name}:", *_described_lines(value, indent + "  ")]
        else:
            dumped = yaml.safe_dump(values[name], allow_unicode=True, default_flow_style=True, width=2**16)
            lines.append(f"{indent}{name}: {dumped.removesuffix('...' + chr(10)).rstrip()}")
    return lines
