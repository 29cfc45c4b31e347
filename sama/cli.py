"""The command line: `sama STAGE …`, `sama init …`, `sama launch …`, `sama config …`, `sama pipeline …`.

A stage's options are made from the signature of its `run`, and only the wanted stage is imported, so that `sama --help`
is instant and threads can be limited before torch starts its own.
"""

import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from sama import guard
from sama.errors import SamaError

DEFAULT_CONFIG = Path("config/config.yaml")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Stage:
    """Where a stage lives and what it does, known without importing it."""

    module: str
    help: str


STAGES: dict[str, Stage] = {
    "prepare": Stage("sama.stages.prepare", "images, splits, planted noise, manifest"),
    "meta-train": Stage("sama.stages.meta_train", "SAMA meta training: an importance weight for every example"),
    "observe": Stage("sama.stages.observe", "one watched training: dynamics and features that scores read"),
    "score": Stage("sama.stages.score", "a pruning score for every training example"),
    "select": Stage("sama.stages.select", "the ids that are kept at a pruning ratio"),
    "suspects": Stage("sama.stages.suspects", "kept ids and suspect labels as CSV, for the owner of the images"),
    "retrain": Stage("sama.stages.retrain", "ordinary training on the kept examples"),
    "evaluate": Stage("sama.stages.evaluate", "test accuracy, noise detection and search cost of a seed"),
    "summarize": Stage("sama.stages.summarize", "one summary over all seeds"),
    "report": Stage("sama.stages.report", "figures and the self-contained report"),
    "prepare-texts": Stage("sama.stages.prepare_texts", "texts: votes, weak labels, splits"),
    "tune": Stage("sama.stages.tune", "texts: choose the hyperparameters of a method on validation"),
    "finetune": Stage("sama.stages.finetune", "texts: finetune a classifier by a method"),
    "evaluate-texts": Stage("sama.stages.evaluate_texts", "texts: the measures of a seed on test, noise detection"),
    "summarize-texts": Stage("sama.stages.summarize_texts", "texts: one summary over all seeds"),
    "suspect-texts": Stage("sama.stages.suspect_texts", "texts: weights and suspect labels as CSV, for their owner"),
    "export-text": Stage("sama.stages.export_text", "texts: the best model as transformers reads it, with a card"),
    "report-texts": Stage("sama.stages.report_texts", "texts: figures and the self-contained report"),
    "track": Stage("sama.stages.track", "mirror the results into MLflow"),
    "track-texts": Stage("sama.stages.track_texts", "texts: mirror the results into MLflow"),
}
TOOLS = {
    "init": "write a configuration for your own images or texts",
    "launch": "carry a stage through submitit",
    "config": "show, check or describe the configuration",
    "pipeline": "hold the folder, mend what a killed run left, become Snakemake",
    "doctor": "check folder, GPU, data, tracking server and cluster, and say what to mend",
}


class Commands(click.Group):
    """The stages in the order of the pipeline, then the tools; a module is imported when its command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in order."""
        return [*STAGES, *TOOLS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name; its modules are imported now."""
        if cmd_name in STAGES:
            from sama.command import stage_command

            module = importlib.import_module(STAGES[cmd_name].module)
            return stage_command(cmd_name, module.run, DEFAULT_CONFIG)
        return {"init": init, "launch": launch, "config": config, "pipeline": pipeline, "doctor": doctor}.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists, without importing anything."""
        for title, rows in (
            ("Stages, in the order of the pipeline", [(name, stage.help) for name, stage in STAGES.items()]),
            ("Tools", list(TOOLS.items())),
        ):
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sama", message="sama %(version)s")
def commands() -> None:
    """Scalable meta learning: importance weights, data pruning, noisy labels.

    `sama STAGE --help` lists the options of a stage. SAMA_DEBUG=1 shows a traceback with every error.
    """


@commands.command()
@click.argument("config_file", type=click.Path(path_type=Path), metavar="MY.yaml")
@click.option("--images", type=click.Path(path_type=Path), help="The folder of images.")
@click.option(
    "--texts", type=click.Path(path_type=Path), help="The file of texts and labels, or a folder of such files."
)
@click.option("--text-column", help="Texts: the column that holds them, if it is not found.")
@click.option("--label-column", help="Texts: a column of labels that are right.")
@click.option("--vote-columns", help="Texts: columns of labels that may be wrong, A,B,…, if they are not found.")
@click.option("--force", is_flag=True, help="Write over MY.yaml if it exists.")
def init(
    config_file: Path,
    images: Path | None,
    texts: Path | None,
    text_column: str | None,
    label_column: str | None,
    vote_columns: str | None,
    force: bool,
) -> Callable[[], None]:
    """Look at your images or texts and write MY.yaml, a commented configuration that fits them.

    --images FOLDER: one folder a class, CLASS/file (.png, .jpg, …); or train/CLASS/file, with test/CLASS/file beside it
    if there is a test set; or parquet files train-*.parquet with columns image {bytes, path} and label.

    --texts FILE: .jsonl (an object a line), .csv or .tsv (with a header), a text a row: a column of texts, and a column
    of labels that may be wrong, or several (rules, annotators), empty where they say nothing. Or a FOLDER with
    train.jsonl (.csv, .tsv), and validation and test beside it if there are such sets, whose labels may be clean.

    \b
    Then:  make reproduce CONFIG=MY.yaml
    reads: results/MY/report/index.html, results/MY/suspects/suspect_labels.csv,
           images: kept.csv there; texts: weights.csv there, and results/MY/model/
    """
    if (images is None) == (texts is None):
        raise click.UsageError(f"expected one of --images and --texts, got {'neither' if images is None else 'both'}")
    if images is not None and (text_column or label_column or vote_columns):
        raise click.UsageError("--text-column, --label-column and --vote-columns are for --texts")

    def write() -> None:
        if texts is not None:
            from sama import own_texts

            votes = tuple(name.strip() for name in (vote_columns or "").split(",") if name.strip())
            asked = own_texts.Columns(text_column, label_column, votes)
            table = own_texts.write_config(config_file, texts, force, asked)
            what = f"{sum(table.texts.values())} texts of {len(table.counts)} classes"
        else:
            from sama import own_images

            folder = own_images.write_config(config_file, Path(images or ""), force)
            what = f"{sum(folder.counts)} images of {len(folder.counts)} classes"
        click.echo(f"{config_file}: {what}; next: make reproduce CONFIG={config_file}")

    return write


@commands.group()
def config() -> None:
    """Show, check or describe the configuration."""


def _load(overlays: Sequence[Path]) -> Any:
    from sama.config import over_default, read, validate_any

    return validate_any(over_default(read(overlays)), where=", ".join(map(str, overlays)) or "config")


@config.command("show")
@click.argument("overlays", nargs=-1, type=click.Path(path_type=Path))
@click.option("--describe", is_flag=True, help="Add each key's description as a comment.")
def config_show(overlays: tuple[Path, ...], describe: bool) -> None:
    """Print the default configuration with OVERLAYS laid over it, in order, validated."""
    from sama.config import dump_yaml

    loaded = _load(overlays)
    if describe:
        from sama.command import described_yaml

        click.echo(described_yaml(loaded), nl=False)
    else:
        click.echo(dump_yaml(loaded), nl=False)


@config.command("check")
@click.argument("overlays", nargs=-1, type=click.Path(path_type=Path))
def config_check(overlays: tuple[Path, ...]) -> None:
    """Validate OVERLAYS over the default configuration; the exit code is 1 if something is wrong."""
    click.echo(f"config of experiment {_load(overlays).experiment}: valid")


@config.command("schema")
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead of printing.")
def config_schema(output: Path | None) -> None:
    """Print the JSON schema of a configuration file."""
    from sama.config import json_schema

    if output is None:
        click.echo(json_schema(), nl=False)
    else:
        from sama.files import write_text

        write_text(output, json_schema())


@commands.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--wait-seconds", type=float, default=60.0, show_default=True, help="Wait this long for earlier jobs.")
def pipeline(arguments: tuple[str, ...], wait_seconds: float) -> Callable[[], NoReturn]:
    """Become `snakemake ARGUMENTS`, after holding the folder and mending what a killed run left behind."""
    from sama.pipeline import become_snakemake

    return functools.partial(become_snakemake, arguments, wait_seconds)


@commands.command(context_settings={"allow_interspersed_args": False})
@click.option("--launcher", type=click.Choice(["inline", "local", "slurm"]), default="local", show_default=True)
@click.option("--cpus", type=click.IntRange(1), default=1, show_default=True, help="Processor cores of a task.")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs of a node.")
@click.option("--memory-mb", type=click.IntRange(1), help="Memory of a node (enforced by slurm alone).")
@click.option("--timeout-minutes", type=click.IntRange(1), default=1440, show_default=True, help="Time limit.")
@click.option(
    "--logs", type=click.Path(path_type=Path), help="Folder of the jobs' files, for slurm one that its nodes share."
)
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="slurm: nodes of the job.")
@click.option("--tasks-per-node", type=click.IntRange(1), default=1, show_default=True, help="slurm: processes a node.")
@click.option("--partition", help="slurm: where the job is queued.")
@click.option("--account", help="slurm: who is charged.")
@click.option("--slurm", multiple=True, metavar="KEY[=VALUE]", help="slurm: a further option of sbatch, repeatable.")
@click.option(
    "--array-limit",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="slurm: pack the cells of a stage into job arrays, so many of them running at a time; 0: no arrays.",
)
@click.option(
    "--retry",
    multiple=True,
    metavar="KIND=COUNT",
    help="slurm: how often to submit again after exception, out_of_memory or node_failure, repeatable.",
)
@click.option(
    "--memory-factor",
    type=click.FloatRange(1),
    default=2.0,
    show_default=True,
    help="slurm: times as much memory after out_of_memory.",
)
@click.argument("stage")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def launch(launcher: str, stage: str, arguments: tuple[str, ...], **resources: Any) -> Callable[[], int]:
    """Run STAGE with ARGUMENTS through LAUNCHER: in this process, as a job of submitit's local executor, or of Slurm.

    With slurm a job is named by the content of what it depends on. Called again, this joins the job that still runs,
    and runs nothing where the result stands. Ctrl-C cancels the job; kill -9 leaves it running.
    """
    if stage not in STAGES:
        raise SamaError(f"unknown stage {stage!r}, expected one of {', '.join(STAGES)}")
    if "-h" in arguments or "--help" in arguments or launcher == "inline":
        return functools.partial(run, [stage, *arguments])
    from sama.launch.following import Resources

    resources["logs"] = resources["logs"] or Path("logs", "slurm" if launcher == "slurm" else "submitit")
    wanted = Resources(**resources)
    if launcher == "slurm":
        from sama.launch.slurm import run_slurm

        return functools.partial(run_slurm, [stage, *arguments], wanted)
    if wanted.nodes * wanted.tasks_per_node > 1:
        raise SamaError("--nodes and --tasks-per-node: expected 1 with the launcher local, which runs one process")
    from sama.launch.local import run_local

    return functools.partial(run_local, [stage, *arguments], wanted)


@commands.command()
@click.argument("overlays", nargs=-1, type=click.Path(path_type=Path))
@click.option("--partition", help="Of a Slurm cluster: look at it too, and send one small job there.")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="GPUs that the small job asks for.")
def doctor(overlays: tuple[Path, ...], partition: str | None, gpus: int) -> Callable[[], int]:
    """Look at what the experiment of OVERLAYS needs: folder, GPU, data, tracking server, cluster.

    A line each: ok, note, or mend and how. The exit code is 1 if something is to be mended.
    """
    from sama import doctor as doctoring

    return lambda: doctoring.report(doctoring.examine(_load(overlays), partition, gpus), click.echo)


def config_paths(arguments: Sequence[str]) -> list[Path]:
    """The files named by `--config` in a stage's arguments, else the default one."""
    paths: list[Path] = []
    inside = False
    for argument in arguments:
        if argument.startswith("--"):
            inside = argument == "--config"
            if argument.startswith("--config="):
                paths.append(Path(argument.partition("=")[2]))
        elif inside:
            paths.append(Path(argument))
    return paths or [DEFAULT_CONFIG]


def limit_threads(arguments: Sequence[str]) -> None:
    """Set the thread variables to `runtime.threads`; numeric libraries read them when they are imported."""
    paths = config_paths(arguments)
    if paths == [DEFAULT_CONFIG] and not DEFAULT_CONFIG.exists():
        return
    from sama.config import load_any

    threads = load_any(paths).runtime.threads
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


def run_stage(arguments: Sequence[str]) -> int:
    """Run `STAGE OPTIONS…` in this process, which then holds the job lock and dies with its owner."""
    signal.signal(signal.SIGTERM, terminate)
    guard.hold_job_lock()
    guard.watch_owner()
    limit_threads(arguments)
    return _invoke(arguments)


def terminate(number: int, frame: object) -> NoReturn:
    """Handle SIGTERM by leaving in order, without children, so that temporary files are removed."""
    for pid in guard.descendants(os.getpid()):
        guard.kill(pid)
    raise SystemExit(128 + number)


def _invoke(arguments: Sequence[str]) -> int:
    """Parse, then run what was parsed outside of click, which would hide a stage's own EOFError and interrupts."""
    result = commands.main(list(arguments), prog_name="sama", standalone_mode=False)
    if callable(result):
        result = result()
    return result if isinstance(result, int) else 0


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors a user can mend become one line on standard error."""
    arguments = arguments or ["--help"]
    name = next((argument for argument in arguments if not argument.startswith("-")), "")
    prefix = f"sama {name}".rstrip()
    try:
        wants_help = any(argument in ("-h", "--help") for argument in arguments)
        return run_stage(arguments) if name in STAGES and not wants_help else _invoke(arguments)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else prefix
        return _fail(where, f"{error.format_message()} (see {where} --help)", 2)
    except (KeyboardInterrupt, click.Abort):
        return _fail(prefix, "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except (SamaError, FloatingPointError) as error:
        return _fail(prefix, str(error), 1)
    except OSError as error:
        return _fail(prefix, _explain(error), 1)
    except Exception:
        traceback.print_exc()
        return 1


def _fail(prefix: str, message: str, code: int) -> int:
    if os.environ.get("SAMA_DEBUG") == "1":
        traceback.print_exc()
    print(f"{prefix}: {' '.join(message.split())}", file=sys.stderr, flush=True)
    return code


def _explain(error: OSError) -> str:
    reason = error.strerror or str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = " -> ".join(names) or next(iter(getattr(error, "__notes__", [])), "")
    if isinstance(error, FileNotFoundError) and where:
        return f"{where}: missing ({reason})"
    return f"{where}: cannot be read or written ({reason})" if where else f"a file cannot be read or written ({reason})"


def main() -> NoReturn:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":  # under its own name, so that there is one table of stages
    from sama import cli

    cli.main()
