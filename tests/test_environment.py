"""The lock and the conda files agree, and the lock names no host."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
LOCK = (ROOT / "envs" / "requirements.lock").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", LOCK, flags=re.MULTILINE))


def test_conda_files_agree_with_the_lock():
    for name in ("sama.yaml", "pipeline.yaml"):
        content = yaml.safe_load((ROOT / "envs" / name).read_text(encoding="utf-8"))
        (packages,) = [entry["pip"] for entry in content["dependencies"] if isinstance(entry, dict)]
        assert {"torch", "timm", "mlflow", "submitit"} <= {package.split("==")[0] for package in packages}
        for package in packages:
            pinned, version = package.split("==")
            assert f"\n{pinned}=={version} " in "\n" + LOCK, f"{name}: {package} is not what the lock pins"
    subprocess.run([sys.executable, str(ROOT / "envs" / "pin.py"), "--check"], check=True)


def test_the_lock_pins_every_dependency_with_hashes_and_names_no_host():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [r for extra in project["optional-dependencies"].values() for r in extra]
    for requirement in wanted:
        assert re.split(r"[\[<>=!~; ]", requirement)[0].lower() in PINS, f"{requirement}: run `make lock`"
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--find-links", LOCK)
