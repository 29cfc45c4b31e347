"""Remove results that the configured workflow no longer makes, before DVC hashes their folders.

A dropped method, ratio or seed leaves files behind that no rule knows; recorded, they would make the same configuration
hash differently here and in a fresh clone. What is removed can be had again from DVC's cache if it was ever recorded.

    python -m workflow.leftovers                        remove those of config/config.yaml
    python -m workflow.leftovers config/texts.yaml      of the experiment on texts
    python -m workflow.leftovers --list                 only name them
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

RECORDED = {
    "config/config.yaml": ("data", "meta", "scores", "kept", "suspects", "models", "evaluation", "plots", "report"),
    "config/texts.yaml": ("data", "tuning", "models", "evaluation", "plots", "suspects", "model", "report"),
}  # configuration -> folders among dvc.yaml's outs


def outputs(config: str) -> set[Path]:
    """Every file and folder that the workflow makes for the experiment of a configuration."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--summary", "--configfile", config]
    done = subprocess.run([*command, "--", "phase_report"], capture_output=True, text=True, check=False)
    header, *rows = done.stdout.splitlines() or [""]
    if done.returncode != 0 or not header.startswith("output_file\t"):
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return {Path(row.split("\t", 1)[0]) for row in rows}


def leftovers(results: Path, recorded: Iterable[str], made: set[Path]) -> list[Path]:
    """Files in the recorded folders of `results` that are neither in `made` nor in a folder that is."""
    found = (path for folder in recorded for path in sorted((results / folder).rglob("*")) if not path.is_dir())
    return [path for path in found if path not in made and made.isdisjoint(path.parents)]


def remove(path: Path, top: Path) -> None:
    """Delete the file and the folders below `top` that it leaves empty."""
    path.unlink()
    for folder in path.parents:
        if folder == top or any(folder.iterdir()):
            return
        folder.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """Name what no rule makes and, unless only a list is wanted, remove it."""
    parser = argparse.ArgumentParser(prog="python -m workflow.leftovers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="remove nothing")
    parser.add_argument("config", nargs="?", choices=RECORDED, default="config/config.yaml", help="of which experiment")
    options = parser.parse_args(arguments)
    results = Path("results") / yaml.safe_load(Path(options.config).read_text(encoding="utf-8"))["experiment"]
    for path in leftovers(results, RECORDED[options.config], outputs(options.config)):
        print(f"{path}: made by no rule any more" + ("" if options.list else "; removed"))
        if not options.list:
            remove(path, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
