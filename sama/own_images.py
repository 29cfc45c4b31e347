"""`sama init`: from a folder of images to a configuration that fits them, with its reasons as comments."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sama.data.sources import Part, Source, SourceOptions, open_source
from sama.data.splits import check_classes, split_sizes, stratified_splits
from sama.errors import SamaError
from sama.own_data import experiment_name, listed, quoted, write_checked

LOOKED_AT = 64  # images whose size and mode are read
SIZES = (64, 128, 224)  # beyond a small stem, the largest that the images have
SMALL = 32  # up to here a small stem, and the size as it is
META, VALIDATION, TEST = 0.1, 0.1, 0.2
EPOCHS, LEAST_STEPS = 20, 200
LARGE = 2 * 10**9  # bytes of pixels; beyond, images stay encoded


@dataclass(frozen=True)
class Found:
    """What a folder holds."""

    source: str
    path: Path
    class_names: tuple[str, ...]
    counts: tuple[int, ...]  # of each class, the part that is split
    tests: int | None  # examples of the folder's own test part
    train: int  # examples left for training
    side: int  # median of the shorter sides looked at, pixels
    sizes: str  # the sizes looked at, in words
    grey: bool  # whether all images looked at are


def write_config(path: Path, images: Path, force: bool) -> Found:
    """Look at the folder `images` and write the configuration `path`, an overlay on config/config.yaml.

    Raises:
        SamaError: `path` is there and `force` is not given, gives no name to the experiment, or the folder is missing
            or cannot be learned from: no class or one, an empty class, nested folders, too few images of a class.
    """
    name = experiment_name(path, force)
    found = look_at(images)
    write_checked(path, config_text(name, found))
    return found


def look_at(images: Path) -> Found:
    """What is in a folder of class folders, parquet files or WebDataset shards; errors are those of `write_config`."""
    folder = Path(images).absolute()
    if not folder.is_dir():
        raise SamaError(f"{images}: {'a file' if folder.exists() else 'no such folder'}, expected a folder of images")
    kinds = {"*.parquet": "parquet", "*.tar": "webdataset"}
    kind = next((name for pattern, name in kinds.items() if any(folder.glob(pattern))), "image_folder")
    source = open_source(SourceOptions(kind, None, str(folder)))
    counts = np.bincount(source.train.label, minlength=len(source.class_names))
    for part, there in ((source.train, "training"), (source.test, "test")):
        present = np.arange(len(counts)) if part is None else part.label
        absent = np.setdiff1d(np.arange(len(counts)), present)
        if len(absent):
            raise SamaError(f"{images}: class {source.class_names[absent[0]]!r} has no image in the {there} part")
    if len(counts) < 2:
        raise SamaError(f"{images}: expected two classes or more, got one: {source.class_names[0]!r}")
    train = _train_size(images, source, counts)
    side, sizes, grey = _looks(source.train)
    tests = None if source.test is None else len(source.test)
    counted = tuple(int(count) for count in counts)
    return Found(kind, folder, source.class_names, counted, tests, train, side, sizes, grey)


def _train_size(images: Path, source: Source, counts: np.ndarray) -> int:
    """Examples of the train split; every split must have every class."""
    part, test = source.train, None if source.test is not None else TEST
    sizes = split_sizes(
        len(part), META, VALIDATION, test, meta_set="noisy_held_out", source="", has_test=source.test is not None
    )
    split = stratified_splits(part.label, part.sample_id, sizes, seed=0)
    try:
        check_classes(part.label, split, source.class_names, ("train", *sizes))
    except SamaError as error:
        rarest = int(np.argmin(counts))
        least = int(np.ceil(1 / min(META, VALIDATION)))
        raise SamaError(
            f"{images}: too few images: class {source.class_names[rarest]!r} has {counts[rarest]}, expected {least} or "
            f"more of each class, so that the {', '.join(sizes)} and train splits have all classes"
        ) from error
    return int(np.sum(split == "train"))


def _looks(part: Part) -> tuple[int, str, bool]:
    """Median shorter side, the sizes in words, and whether all are grey, of some images spread over the part."""
    rows = np.unique(np.linspace(0, len(part) - 1, LOOKED_AT).astype(np.int64))
    shapes: list[tuple[int, int]] = []
    grey = True
    for row in rows:
        try:
            image = next(iter(part.read(np.array([row])))).open()
        except SamaError:  # prepare will name it; here others tell the size
            continue
        shapes.append(image.size)
        grey = grey and _is_grey(image)
    if not shapes:
        raise SamaError(f"{part.sample_id[0]}: none of {len(rows)} images looked at can be decoded")
    common = [f"{width}x{height}" for (width, height), _ in Counter(shapes).most_common(3)]
    more = len(set(shapes)) - len(common)
    words = ", ".join(common) + (f" and {more} other sizes" if more > 0 else "")
    return int(np.median([min(shape) for shape in shapes])), words, grey


def _is_grey(image: Image.Image) -> bool:
    """Whether no pixel has a colour, whatever the mode says."""
    if image.mode in ("1", "L", "LA") or image.mode.startswith("I"):
        return True
    pixels = np.asarray(image.convert("RGBA").convert("RGB"))
    return bool((pixels == pixels[:, :, :1]).all())


def config_text(name: str, found: Found) -> str:
    """The configuration as YAML with comments."""
    small = found.side <= SMALL
    size = found.side if small else max((size for size in SIZES if size <= found.side), default=SMALL)
    tiny = small and found.train < 5000
    batch = 128 if found.train >= 10_000 else min(64, 2 ** max(int(np.log2(found.train)) - 1, 1))
    steps = max(LEAST_STEPS, -(-EPOCHS * found.train // batch))
    channels = 1 if found.grey else 3
    pixels = (sum(found.counts) + (found.tests or 0)) * channels * size**2
    notes = {
        "size": f"looked at: {found.sizes}" + ("" if small else "; more pixels cost in proportion to their number"),
        "storage": f"{pixels / 1e9:.2g} GB of pixels; decoded: in memory, encoded: decoded whenever they are read",
        "channels": "all images looked at are grey" if found.grey else "grey becomes three equal channels; no alpha",
        "test": "test: read once, at the end" if found.tests is None else "test: null is the folder's own test part",
        "model": "any timm model" + ("; test_resnet is tiny, for results in minutes" if tiny else ""),
    }
    return TEMPLATE.format(
        name=name,
        experiment=quoted(name),
        images=sum(found.counts),
        classes=len(found.counts),
        own_test="" if found.tests is None else f", and a test part of {found.tests}",
        listed=listed(found.class_names, found.counts),
        root=quoted(str(found.path.parent)),
        source=found.source,
        path=quoted(found.path.name),
        size=size,
        channels=channels,
        storage="encoded" if pixels > LARGE else "decoded",
        meta=META,
        validation=VALIDATION,
        test="null" if found.tests is not None else TEST,
        model="test_resnet" if tiny else "resnet18",
        small_stem=str(small).lower(),
        steps=steps,
        passes=round(steps * batch / found.train),
        train=found.train,
        batch=batch,
        meta_batch=min(batch, 100),
        every=max(steps // 10, 1),
        often=max(steps // 5, 1),
        note=notes,
    )


TEMPLATE = """\
# {images} images of {classes} classes{own_test}:
{listed}
# Written by `sama init`: an overlay on config/config.yaml, for `make reproduce CONFIG=` and the name of this file.
# `sama config show --describe` explains every key.
experiment: {experiment}  # results go to results/{name}/
seeds: [0, 1, 2]  # each splits anew, and judges what it holds out; the more seeds, the more images are judged unseen

data_root: {root}
data:
  source: {source}
  path: {path}
  corrupt_images: error  # skip: leave out what cannot be decoded, counted and named
  image_size: {size}  # {note[size]}
  channels: {channels}  # {note[channels]}
  storage: {storage}  # {note[storage]}
  # Whose loss the weights are to lower. Nothing says which labels are right here, so none is taken to be:
  #   noisy_held_out   held-out examples (splits.meta of them), labels as they are. Low weights mark wrong labels where
  #                    few are wrong; where many are, what is easy. Suspects come from held-out predictions
  #   clean_held_out   the same examples, if you know their labels to be right: a low weight marks wrong labels
  #   training         the training set itself, as in the paper's pruning experiments: a low weight marks what is easy
  meta_set: noisy_held_out
  max_images: null
  max_test_images: null
  splits: {{meta: {meta}, validation: {validation}, test: {test}}}  # {note[test]}
  noise: {{kind: none, rate: 0.0}}  # none is planted

model:
  name: {model}  # {note[model]}
  small_stem: {small_stem}  # true for images of 32 pixels and less

training:
  steps: {steps}  # about {passes} passes over {train} training examples
  batch_size: {batch}
  augment: {{crop_padding: 0, horizontal_flip: false}}  # flip: true where left and right do not matter
  log_every: {every}
  checkpoint_every: {often}

meta:
  batch_size: {meta_batch}
  training:
    steps: {steps}
    batch_size: {batch}
    augment: {{crop_padding: 0, horizontal_flip: false}}
    log_every: {every}
    checkpoint_every: {often}

scores:
  methods: [meta_weight, random]  # a score that does not beat random pruning is of no use on these images

selection:
  strategy: class_balanced  # the same fraction of every class
  pruning_ratios: [0.1, 0.3]
"""
