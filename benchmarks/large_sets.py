"""What large image sets cost: manifest and selection of ImageNet's size, and scoring from shards as they grow.

`python -m benchmarks.large_sets manifest --folder DIR` writes 1 281 167 synthetic samples of 1000 classes (one tiny JPEG
each) as WebDataset shards below DIR, then runs `sama prepare`, scores at random and `sama select` in processes of their
own, and prints time and peak resident memory of each.
`python -m benchmarks.large_sets scoring --folder DIR --source FILE.parquet …` writes shards of 5 000, 10 000 and 20 000
real JPEGs (those of the parquet files, repeated under other keys), and prints time and memory of scoring each by entropy
after a few steps of training, with the slope between them.
"""

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

IMAGENET = 1_281_167
CLASSES = 1000
PER_SHARD = 10_000
COUNTS = (5_000, 10_000, 20_000)


def write_shards(folder: Path, samples: Iterable[tuple[str, bytes, int]], part: str = "train") -> None:
    """Shards of (key, JPEG, label) samples."""
    folder.mkdir(parents=True, exist_ok=True)
    archive: tarfile.TarFile | None = None
    for number, (key, content, label) in enumerate(samples):
        if number % PER_SHARD == 0:
            if archive is not None:
                archive.close()
            archive = tarfile.open(folder / f"{part}-{number // PER_SHARD:06d}.tar", "w", format=tarfile.USTAR_FORMAT)
        assert archive is not None
        for extension, held in (("jpg", content), ("cls", str(label).encode())):
            member = tarfile.TarInfo(f"{key}.{extension}")
            member.size = len(held)
            archive.addfile(member, BytesIO(held))
    if archive is not None:
        archive.close()


def synthetic(count: int) -> Iterator[tuple[str, bytes, int]]:
    stream = BytesIO()
    Image.new("L", (8, 8), 128).save(stream, "JPEG")
    for number in range(count):
        yield f"n{number % CLASSES:08d}_{number:08d}", stream.getvalue(), number % CLASSES


def repeated(files: list[Path], count: int) -> Iterator[tuple[str, bytes, int]]:
    images = [row for file in files for row in pq.read_table(file, columns=["image", "label"]).to_pylist()]
    for number in range(count):
        row = images[number % len(images)]
        yield f"{number:08d}", row["image"]["bytes"], row["label"]


def measured(name: str, arguments: list[str]) -> dict[str, float | str]:
    """Seconds and peak resident memory of `sama ARGUMENTS` in a process of its own."""
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "sama.cli", *arguments])
    _, status, used = __import__("os").wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} failed: {' '.join(arguments)}")
    return {
        "stage": name,
        "seconds": round(time.monotonic() - start, 1),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def configured(folder: Path, **changes: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(changes))
    return path
