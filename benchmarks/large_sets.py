"""What large image sets cost: manifest and selection of ImageNet's size, and scoring from shards as they grow.

`python -m benchmarks.large_sets manifest --folder DIR` writes 1 281 167 synthetic samples of 1000 classes (one tiny
JPEG each) as WebDataset shards below DIR, then runs `sama prepare`, scores at random and `sama select` in processes of
their own, and prints time and peak resident memory of each.
`python -m benchmarks.large_sets scoring --folder DIR --source FILE.parquet …` writes shards of 5 000, 10 000 and 20 000
real JPEGs (those of the parquet files, repeated under other keys), and prints time and memory of scoring each by
entropy after a few steps of training, with the slope between them.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import count, islice
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
    left = iter(samples)
    for number in count():
        held = list(islice(left, PER_SHARD))
        if not held:
            return
        with tarfile.open(folder / f"{part}-{number:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for key, content, label in held:
                for extension, field in (("jpg", content), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{key}.{extension}")
                    member.size = len(field)
                    archive.addfile(member, BytesIO(field))


def synthetic(samples: int) -> Iterator[tuple[str, bytes, int]]:
    stream = BytesIO()
    Image.new("L", (8, 8), 128).save(stream, "JPEG")
    for number in range(samples):
        yield f"n{number % CLASSES:08d}_{number:08d}", stream.getvalue(), number % CLASSES


def repeated(files: list[Path], samples: int) -> Iterator[tuple[str, bytes, int]]:
    images = [row for file in files for row in pq.read_table(file, columns=["image", "label"]).to_pylist()]
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    for number in range(samples):
        row = images[order[number % len(images)]]
        yield f"{number:08d}", row["image"]["bytes"], row["label"]


Used = dict[str, float | str]


def measured(arguments: list[str]) -> Used:
    """Seconds, seconds of the processor and peak resident MB of `sama ARGUMENTS` in a process of its own."""
    start = time.monotonic()
    child = subprocess.Popen([sys.executable, "-m", "sama.cli", *arguments], stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"failed: sama {' '.join(arguments)}")
    seconds, cpu = time.monotonic() - start, used.ru_utime + used.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(used.ru_maxrss / 1024)}


def stage(folder: Path, name: str, config: dict[str, object], **options: object) -> Used:
    """The same, of one stage with its options."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    given = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    return measured([name, "--config", str(path), *given])


def manifest(folder: Path, samples: int) -> list[Used]:
    shards = folder / "shards"
    write_shards(shards, synthetic(samples))
    data = {"source": "webdataset", "path": str(shards), "storage": "encoded", "image_size": 8, "check_images": False}
    data |= {"meta_set": "training", "splits": {"validation": 0.01, "test": 0.04}}
    config: dict[str, object] = {"data": data}
    made = {"images": folder / "data/images.parquet", "manifest": folder / "data/seed0/manifest.parquet", "seed": 0}
    scores = {"method": "random", "out": folder / "random.parquet", "summary": folder / "random.json"}
    rows = [
        ("prepare", stage(folder, "prepare", config, seeds=0, out=folder / "data")),
        ("score random", stage(folder, "score", config, **made, **scores, work=folder / "work")),
    ]
    del made["images"]
    for strategy in ("global", "class_balanced", "stratified"):
        settings = {**config, "selection": {"strategy": strategy}}
        options = {**made, "scores": folder / "random.parquet", "ratio": 0.5, "out": folder / "kept.parquet"}
        rows.append((f"select {strategy}", stage(folder, "select", settings, **options)))
    return [{"stage": name, **used} for name, used in rows]


def scoring(folder: Path, source: list[Path], counts: tuple[int, ...], workers: int) -> list[Used]:
    rows: list[Used] = []
    for samples in counts:
        place = folder / str(samples)
        write_shards(place / "shards", repeated(source, samples))
        write_shards(place / "shards", repeated(source, 100), "test")
        data = {"source": "webdataset", "path": str(place / "shards"), "storage": "encoded", "image_size": 64}
        data |= {"meta_set": "training", "splits": {"validation": 100, "test": None}}
        config: dict[str, object] = {
            "data": data,
            "model": {"small_stem": False},
            "training": {"steps": 10},
            "scores": {"methods": ["entropy"], "entropy": {"models": 1, "steps": 10}},
            "runtime": {"workers": workers, "device": "cpu"},
        }
        made = {"images": place / "data/images.parquet", "manifest": place / "data/seed0/manifest.parquet", "seed": 0}
        scores = {"method": "entropy", "out": place / "entropy.parquet", "summary": place / "entropy.json"}
        for name, used in (
            ("prepare", stage(place, "prepare", config, seeds=0, out=place / "data")),
            ("score entropy", stage(place, "score", config, **made, **scores, work=place / "work")),
        ):
            rows.append({"stage": name, "images": samples, **used})
    for name in ("prepare", "score entropy"):
        own = [row for row in rows if row["stage"] == name]
        slope: Used = {"stage": f"{name}: slope", "images": 1000}
        for column in ("seconds", "cpu_seconds", "peak_mb"):
            x, y = (np.array([float(row[key]) for row in own]) for key in ("images", column))
            slope[column] = round(1000 * float(np.polyfit(x, y, 1)[0]), 2)
        rows.append(slope)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["manifest", "scoring"])
    parser.add_argument("--folder", type=Path, required=True, help="where to write; gigabytes")
    parser.add_argument(
        "--source", type=Path, nargs="*", default=[], help="scoring: parquet files with image and label"
    )
    parser.add_argument("--counts", type=int, nargs="*", default=COUNTS, help="scoring: images")
    parser.add_argument("--images", type=int, default=IMAGENET, help="manifest: samples")
    parser.add_argument("--workers", type=int, default=2, help="scoring: decoding threads")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "manifest":
        rows = manifest(given.folder, given.images)
    else:
        rows = scoring(given.folder, given.source, tuple(given.counts), given.workers)
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")


if __name__ == "__main__":
    main()
