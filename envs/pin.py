"""Write the conda files from pyproject.toml and the lock: `python envs/pin.py`, a part of `make lock`.

The conda files carry the lock's versions of the packages that we name ourselves; what those need in turn, pip resolves.
"""

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = {
    "sama.yaml": ("what a stage runs in, for `snakemake --sdm conda`", ("pipeline",), {"dvc", "snakemake", "pygments"}),
    "pipeline.yaml": ("everything, for a shell that runs pipeline and tests", ("pipeline", "text", "dev"), set()),
}


def locked(lock: Path = HERE / "requirements.lock", python: str = "3.11") -> dict[str, str]:
    """Package -> pinned version for this Python; of several pins, the one whose marker names it."""
    versions: dict[str, str] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        pin = re.match(r"([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))? ?\\?$", line)
        if pin and not (pin[3] and f">= '{_next_minor(python)}'" in pin[3]):
            versions[pin[1].lower()] = pin[2]
    return versions


def _next_minor(python: str) -> str:
    major, minor = python.split(".")
    return f"{major}.{int(minor) + 1}"


def conda_text(purpose: str, extras: tuple[str, ...], without: set[str]) -> str:
    """One conda file."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    names = sorted({re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in wanted} - without)
    versions = locked()
    pins = "\n".join(f"      - {name}=={versions[name]}" for name in names)
    return (
        f"# Written by envs/pin.py from the lock: {purpose}.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        f"dependencies:\n  - python=3.11\n  - pip\n  - pip:\n{pins}\n"
    )


def main() -> int:
    """Rewrite the files; with `--check` only compare, and exit with 1 if one has drifted."""
    drifted = []
    for name, content in FILES.items():
        text = conda_text(*content)
        path = HERE / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            drifted.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    if drifted:
        print(f"{', '.join(drifted)}:", "drifted, run python envs/pin.py" if "--check" in sys.argv else "rewritten")
    return 1 if drifted and "--check" in sys.argv else 0


if __name__ == "__main__":
    raise SystemExit(main())
