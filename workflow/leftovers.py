"""Remove results that the configured workflow no longer makes, before DVC hashes their folders.

A dropped method, ratio or seed leaves files behind that no rule knows; recorded, they would make the same configuration
hash differently here and in a fresh clone. What is removed can be had again from DVC's cache if it was ever recorded.

    python -m workflow.leftovers            remove them
    python -m workflow.leftovers --list     only name them
"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

CONFIG = Path("config/config.yaml")
RECORDED = (
    "data",
    "meta",
    "scores",
    "kept",
    "suspects",
    "models",
    "evaluation",
    "plots",
    "report",
)  # folders among dvc.yaml's outs


def outputs() -> set[Path]:
    """Every file and folder that the workflow makes for the configured experiment."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", "--summary", "--", "phase_report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    header, *rows = done.stdout.splitlines() or [""]
    if done.returncode != 0 or not header.startswith("output_file\t"):
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return {Path(row.split("\t", 1)[0]) for row in rows}


def leftovers(results: Path, made: set[Path]) -> list[Path]:
    """Files in the recorded folders of `results` that are neither in `made` nor in a folder that is."""
    found = (path for folder in RECORDED for path in sorted((results / folder).rglob("*")) if not path.is_dir())
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
    options = parser.parse_args(arguments)
    results = Path("results") / yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["experiment"]
    for path in leftovers(results, outputs()):
        print(f"{path}: made by no rule any more" + ("" if options.list else "; removed"))
        if not options.list:
            remove(path, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
