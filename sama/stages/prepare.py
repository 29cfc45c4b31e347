"""From an image source to its images and one manifest a seed. See `run`."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sama.config import DataConfig
from sama.data.encoded import EncodedImages
from sama.data.manifest import SPLITS, check_unique, open_pixels
from sama.data.noise import plant, realised
from sama.data.overlap import overlap_report
from sama.data.seeding import generator
from sama.data.sources import Part, Source, SourceOptions, open_source
from sama.data.splits import balanced_subset, check_classes, split_sizes, stratified_splits
from sama.data.writing import WORKERS, Written, channel_statistics, write_images, write_index
from sama.errors import SamaError
from sama.files import sha256, write_json, write_parquet

NOISY = ("train", "validation")
STATISTICS_IMAGES = 4096  # of the train split, where images stay encoded
STATISTICS_SEED = 20231211


def run(*, out: Path, seeds: tuple[int, ...], data_root: Path | None, data: DataConfig) -> None:
    """Read the image source, split it, plant label noise, and write images and manifests.

    Decodes every image once, for all seeds: OUT/images.npy (or, with `data.storage` encoded, OUT/images.parquet, which
    says where they stand) and OUT/dataset.json. Each seed then has its own splits and its own noise:
    OUT/seedS/manifest.parquet and OUT/seedS/manifest.json. All files appear together at the end, or, after an error,
    none; the same configuration gives the same bytes.

    Args:
        out: folder to write to, results/EXPERIMENT/data in the pipeline.
        seeds: one manifest is written for each.
        data_root: folder that holds the data sets; needed by all sources but digits.
        data: section `data` of the configuration.

    Raises:
        SamaError: the source is unknown, missing or damaged (a corrupt image: see `data.corrupt_images`), or cannot be
            split as asked.
    """
    out = Path(out)
    options = SourceOptions(data.source, data_root, data.path, data.label_column, data.observed_label_column)
    source = open_source(options)
    examples = _choose(source, data)
    partial = out.with_name(f".{out.name}.partial")  # a fixed name: what a killed run left is found and removed
    shutil.rmtree(partial, ignore_errors=True)
    try:
        manifests = {seed: _manifest(examples, source, data, seed) for seed in seeds}
        images, written = _write_images(partial, examples, source, data)
        skipped = sorted(examples.sample_id[~written.decoded].tolist())
        if skipped:
            print(f"{len(skipped)} corrupt images are left out: {', '.join(skipped[:3])}{', …' * (len(skipped) > 3)}")
            examples = examples.only(written.decoded)
            manifests = {seed: _manifest(examples, source, data, seed) for seed in seeds}
        content_hash = sha256(
            *_columns(examples.sample_id, examples.label, examples.clean_label),
            "\n".join(source.class_names),
            images,
            *([] if images.suffix == ".npy" else [b"".join(written.fingerprints)]),
        )
        dataset = {
            "source": data.source,
            "class_names": list(source.class_names),
            "image_shape": list(written.image_shape),
            "examples": len(examples),
            "skipped": skipped,
            "content_hash": content_hash,
        }
        write_json(partial / "dataset.json", dataset)
        pixels = open_pixels(images, data_root, WORKERS)
        for seed, manifest in manifests.items():
            facts = _facts(manifest, pixels, written.fingerprints, dataset, data.meta_set)
            write_parquet(partial / f"seed{seed}" / "manifest.parquet", manifest)
            write_json(partial / f"seed{seed}" / "manifest.json", {"seed": seed, **facts})
        _publish(partial, out, seeds)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_images(partial: Path, examples: "_Examples", source: Source, data: DataConfig) -> tuple[Path, Written]:
    channels, skip_corrupt = data.channels or source.channels, data.corrupt_images == "skip"
    if data.storage == "decoded":
        path = partial / "images.npy"
        return path, write_images(path, examples.chosen, channels, data.image_size, skip_corrupt)
    if data.image_size is None or data.path is None:
        raise ValueError(
            "storage encoded: expected an image_size and a path; the configuration and the source see to it"
        )
    path = partial / "images.parquet"
    form = (channels, data.image_size, str(Path(data.path)))  # "": the data root itself, "."; in the index: beside it
    return path, write_index(path, examples.chosen, *form, skip_corrupt=skip_corrupt, check=data.check_images)


class _Examples:
    """The chosen examples of all parts, in the order of their images: the pool, then the source's own test part."""

    def __init__(self, chosen: list[tuple[Part, NDArray[np.int64]]]) -> None:
        self.chosen = chosen
        self.pool = len(chosen[0][1])
        self.sample_id = np.concatenate([part.sample_id[rows] for part, rows in chosen])
        self.label = np.concatenate([part.label[rows] for part, rows in chosen])
        self.origin = np.concatenate([part.origin[rows] for part, rows in chosen])
        self.observed_apart = chosen[0][0].clean_label is not None  # the source itself knows two labels
        clean = [part.label if part.clean_label is None else part.clean_label for part, _ in chosen]
        self.clean_label = np.concatenate([c[rows] for c, (_, rows) in zip(clean, chosen, strict=True)])

    def __len__(self) -> int:
        return len(self.label)

    def only(self, chosen: NDArray[np.bool_]) -> "_Examples":
        """Those of the mask [n]."""
        ends = np.cumsum([len(rows) for _, rows in self.chosen])
        masks = np.split(chosen, ends[:-1])
        return _Examples([(part, rows[mask]) for (part, rows), mask in zip(self.chosen, masks, strict=True)])


def _choose(source: Source, data: DataConfig) -> _Examples:
    """The examples to decode: of the pool, and of the source's own test part where `splits.test` is null."""
    if data.observed_label_column is not None and source.train.clean_label is None:
        raise SamaError(f"data.observed_label_column: source {data.source!r} has no columns, expected null")
    pool = source.train
    chosen = [(pool, balanced_subset(pool.label, pool.sample_id, data.max_images))]
    test = source.test if data.splits.test is None else None
    if test is not None:
        chosen.append((test, balanced_subset(test.label, test.sample_id, data.max_test_images)))
    elif data.max_test_images is not None:
        raise SamaError(
            "data.max_test_images: expected null, for the test split is not the source's own test part here: "
            f"splits.test is {data.splits.test} and source {data.source!r} has {'a' if source.test else 'no'} test part"
        )
    return _Examples(chosen)


def _manifest(examples: _Examples, source: Source, data: DataConfig, seed: int) -> pd.DataFrame:
    """The table of one seed, sorted by `sample_id`.

    Splits are stratified on the labels that the source gives to learners. Planted noise comes after the split, so that
    its rate is exact in each; a noisy source has its observed labels in train and validation, and so has noisy meta.
    """
    splits, names = data.splits, source.class_names
    sizes = split_sizes(
        examples.pool,
        splits.meta,
        splits.validation,
        splits.test,
        meta_set=data.meta_set,
        source=data.source,
        has_test=source.test is not None,
    )
    split = np.full(len(examples), "test", dtype="<U10")
    pool = slice(0, examples.pool)
    split[pool] = stratified_splits(examples.label[pool], examples.sample_id[pool], sizes, seed)
    present = [name for name in SPLITS if name != "meta" or data.meta_set != "training"]
    check_classes(examples.label, split, names, present)

    noisy = (*NOISY, "meta") if data.meta_set == "noisy_held_out" else NOISY
    label = examples.clean_label.copy()
    for name in noisy:
        inside = np.flatnonzero(split == name)
        label[inside] = plant(
            examples.label[inside],
            examples.sample_id[inside],
            names,
            kind=data.noise.kind,
            rate=data.noise.rate,
            flips=data.noise.flips,
            seed=seed,
            part=SPLITS.index(name),
            where=name,
        )
    check_classes(label, split, names, present)
    columns: dict[str, Any] = {"sample_id": examples.sample_id, "split": split, "label": label}
    if examples.observed_apart or data.noise.kind != "none":
        columns["clean_label"] = examples.clean_label
    columns |= {"source": examples.origin, "row": np.arange(len(examples), dtype=np.int64)}
    broken = [sample_id for sample_id in examples.sample_id.tolist() if "\n" in sample_id]
    if broken:  # ids are lines of text in files of features and dynamics
        raise SamaError(f"source {data.source!r}: expected sample ids without line breaks, got {broken[0]!r}")
    manifest = pd.DataFrame(columns).sort_values("sample_id", ignore_index=True)
    check_unique(manifest, where=f"source {data.source!r}")
    return manifest


def _facts(
    manifest: pd.DataFrame,
    pixels: NDArray[np.uint8] | EncodedImages,
    fingerprints: list[bytes],
    dataset: dict[str, Any],
    meta_set: str,
) -> dict[str, Any]:
    """What manifest.json says: counts, realised noise, overlap, pixel statistics of the train split, hash."""
    sample_id, split = manifest["sample_id"].to_numpy(str), manifest["split"].to_numpy(str)
    label, row = manifest["label"].to_numpy(), manifest["row"].to_numpy()
    clean = manifest["clean_label"].to_numpy() if "clean_label" in manifest else None
    names = dataset["class_names"]
    present = [name for name in SPLITS if name in split]
    inside = {name: split == name for name in present}
    counts = {name: np.bincount(label[inside[name]], minlength=len(names)).tolist() for name in present}
    train = row[inside["train"]]
    if isinstance(pixels, EncodedImages):  # a sample, for every image has to be decoded for it
        train = train[generator("statistics", STATISTICS_SEED).permutation(len(train))[:STATISTICS_IMAGES]]
    mean, deviation = channel_statistics(pixels, np.sort(train))
    return {
        "examples": len(manifest),
        "class_names": names,
        "meta_set": meta_set,
        "counts": {name: sum(counts[name]) for name in present},
        "class_counts": {name: dict(zip(names, counts[name], strict=True)) for name in present},
        "noise": None
        if clean is None
        else {name: realised(label[inside[name]], clean[inside[name]]) for name in present},
        "overlap": overlap_report([fingerprints[i] for i in row], sample_id, split, present) if fingerprints else {},
        "channel_mean": mean,
        "channel_std": deviation,
        "content_hash": sha256(dataset["content_hash"], *_columns(sample_id, split, label, clean), meta_set),
    }


def _columns(*columns: NDArray[Any] | None) -> list[str]:
    """Columns as text that a hash can take, a null column apart from an empty one."""
    return ["null" if column is None else "\n".join(map(str, column.tolist())) for column in columns]


def _publish(partial: Path, out: Path, seeds: tuple[int, ...]) -> None:
    """Move the finished files to their places; images and manifests that these do not replace go away."""
    finished = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    for name in finished:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).replace(out / name)
    for name in ("images.npy", "images.parquet", "images.bin"):
        if Path(name) not in finished:
            (out / name).unlink(missing_ok=True)
    wanted = {f"seed{seed}" for seed in seeds}
    for folder in out.glob("seed*"):
        if folder.name not in wanted:
            for name in ("manifest.parquet", "manifest.json"):
                (folder / name).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
