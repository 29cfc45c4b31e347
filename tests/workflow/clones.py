"""Miniatures of the embedded experiments in a git clone of the working tree, for tests that run the real workflow."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from sama.config import merge

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = "digits_pruning"
MINIATURE = {
    "experiment": EXPERIMENT,
    "seeds": [0],
    "data": {
        "source": "digits",
        "splits": {"meta": 40, "validation": 40, "test": 60},
        "max_images": 200,
        "noise": {"kind": "symmetric", "rate": 0.3},
    },
    "model": {"name": "test_resnet", "small_stem": True},
    "training": {"steps": 4, "batch_size": 16, "log_every": 2},
    "meta": {"training": {"steps": 12, "batch_size": 16, "log_every": 4}},
    "scores": {"methods": ["meta_weight", "random"]},
    "selection": {"pruning_ratios": [0.3]},
    "launcher": {"kind": "inline"},
}
TEXTS = {  # laid over config/texts.yaml
    "seeds": [0],
    "data": {"max_texts": 200},
    "model": {"max_length": 24, "hidden_size": 8, "layers": 1, "heads": 1},
    "training": {"steps": 6, "batch_size": 16, "warmup_steps": 0, "log_every": 3},
    "finetuning": {"methods": ["majority_vote", "meta_r"]},
    "tuning": {"seeds": [100], "grids": None},
    "launcher": {"kind": "inline"},
}
ON_TEXTS = ("--configfile", "config/texts.yaml")


class Clone:
    """A git clone of the working tree as it is, with the miniature experiments."""

    python = sys.executable

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results" / EXPERIMENT

    def attempt(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, with the programs of this environment and the package of the clone."""
        environment = {
            **os.environ,
            "PATH": f"{Path(self.python).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "user.name",
            "GIT_CONFIG_VALUE_0": "test",
            "GIT_CONFIG_KEY_1": "user.email",
            "GIT_CONFIG_VALUE_1": "test@localhost",
        }
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def run(self, *command: str) -> str:
        """What a command says; it must succeed."""
        done = self.attempt(*command)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    def wanted(self, *options: str) -> set[str]:
        """The rules that Snakemake wants to run."""
        text = self.run("snakemake", "--dry-run", *options)
        table = re.search(r"^Job stats:\n.*\n[- ]+\n((?:\w+ +\d+\n)+)", text, flags=re.MULTILINE)
        return {line.split()[0] for line in table[1].splitlines()} - {"all", "total"} if table else set()

    def make(self, target: str) -> None:
        """The recipe of a Makefile target, without its prerequisites."""
        recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert recipe, target
        self.run("bash", "-ec", recipe[1].replace("$(CORES)", "2"))

    def content(self) -> dict[str, bytes]:
        results = self.folder / "results"
        files = sorted(path for path in results.rglob("*") if path.is_file())
        return {path.relative_to(results).as_posix(): path.read_bytes() for path in files}


def miniature(folder: Path) -> Clone:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(MINIATURE, sort_keys=False))
    texts = folder / "config/texts.yaml"
    texts.write_text(yaml.safe_dump(merge(yaml.safe_load(texts.read_text()), TEXTS), sort_keys=False))
    clone = Clone(folder)
    clone.run("git", "init", "--quiet")
    clone.run("git", "add", "--all")
    clone.run("git", "commit", "--quiet", "--message", "miniature")
    return clone
