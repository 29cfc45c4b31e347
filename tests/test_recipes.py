"""The recipes in config/experiments: each valid with and without its quick overlay, with knobs that fit its data."""

import os
import subprocess
from pathlib import Path

import pytest

from sama.config import Config, TextsConfig, load, load_any
from sama.networks.classifiers import build_classifier

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "config" / "config.yaml"
FOLDER = ROOT / "config" / "experiments"
ALL = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.endswith("_quick"))
TEXTS = ("wrench_bert", "wrench_roberta", "continued_pretraining")
RECIPES = [name for name in ALL if name not in TEXTS]
# images of the training part, and of a source that is laid over a recipe
POOL = {
    "fashion_mnist_pruning": 60000,
    "cifar10_pruning": 50000,
    "cifar10n_pruning": 50000,
    "tiny_imagenet_pruning": 100000,
    "imagenet_pruning": 1281167,
}
SOURCES = [
    ("cifar10n_jpeg", "cifar10n_pruning", 50000),
    ("tiny_imagenet10", "tiny_imagenet_pruning", 5000),
    ("tiny_imagenet10", "imagenet_pruning", 5000),
]
ALWAYS = {"random", "el2n", "forgetting", "aum", "dyn_unc", "dual", "meta_weight"}


def files(recipe: str, quick: bool, source: str | None = None) -> list[Path]:
    overlay = [FOLDER / f"{recipe}_quick.yaml"] if quick else []
    return [
        BASE,
        FOLDER / f"{recipe}.yaml",
        *overlay,
        *([ROOT / "config/sources" / f"{source}.yaml"] if source else []),
    ]


def training_examples(config: Config, pool: int) -> int:
    pool = min(pool, config.data.max_images or pool)
    held_out = [
        config.data.splits.validation,
        *([] if config.data.meta_set == "training" else [config.data.splits.meta]),
    ]
    return pool - sum(round(size * pool) if isinstance(size, float) else size for size in held_out)


def test_the_default_validates_and_every_recipe_has_a_quick_overlay():
    assert load([BASE]).experiment == "digits_pruning"
    assert {f"{recipe}_quick" for recipe in ALL} == {path.stem for path in FOLDER.glob("*_quick.yaml")}
    assert set(RECIPES) == set(POOL)
    assert {path.stem for path in (ROOT / "config" / "sources").glob("*.yaml")} == {source for source, _, _ in SOURCES}


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_validates_and_its_knobs_fit_its_data(recipe, quick):
    config = load(files(recipe, quick))
    assert config.experiment == recipe + ("_quick" if quick else "")
    assert set(config.scores.methods) >= ALWAYS
    check_knobs(config, POOL[recipe])


@pytest.mark.parametrize("quick", [False, True], ids=["whole", "quick"])
@pytest.mark.parametrize("recipe", TEXTS)
def test_every_recipe_on_texts_validates_and_compares_methods_of_one_kind(recipe, quick):
    config = load_any([ROOT / "config" / "texts.yaml", *files(recipe, quick)[1:]])
    assert isinstance(config, TextsConfig)
    assert config.experiment == recipe + ("_quick" if quick else "")
    assert len(config.seeds) == 5
    weak = {"majority_vote", "dawid_skene", "clean_only", "weak_then_clean", "self_training", "meta_r", "meta_r_na"}
    pretraining = {"finetune", "tapt", "multitask", "meta_auxiliary"}
    expected = pretraining if recipe == "continued_pretraining" else weak | {"meta_rc"}
    assert set(config.finetuning.methods) == expected
    assert config.meta.options.displace == (recipe != "continued_pretraining")  # the paper's, and the default is not
    assert len({len(config.tuning.candidates(method)) for method in expected}) == 1


@pytest.mark.parametrize(("source", "recipe", "pool"), SOURCES)
def test_another_source_may_be_laid_over_a_quick_recipe(source, recipe, pool):
    config = load(files(recipe, True, source))
    assert config.data.source == "parquet"
    check_knobs(config, pool)


def check_knobs(config: Config, pool: int) -> None:
    """What the stages would refuse after minutes: a window of too many visits, more steps than the schedule has."""
    training, meta, scores = config.training, config.meta, config.scores
    examples = training_examples(config, pool)
    observed = config.observe.steps or training.steps
    assert observed <= training.steps
    epochs = observed * training.batch_size // examples
    for knobs in (scores.dyn_unc, scores.tdds, scores.dual):
        read = knobs.epochs or epochs
        named = next(name for name in ("dyn_unc", "tdds", "dual") if getattr(scores, name) is knobs)
        if named in scores.methods:
            assert knobs.window <= read <= epochs, named
    for name in {"el2n", "grand", "margin", "entropy"} & set(scores.methods):
        assert getattr(scores, name).steps <= training.steps, name
    scored = meta.training.steps - round(meta.score_from * meta.training.steps)
    assert scored * meta.training.batch_size >= 2 * examples
    assert meta.training.precision == training.precision and meta.training.augment == training.augment
    assert meta.training.optimizer == training.optimizer  # the meta weight gets the recipe that the others get


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_model_of_every_quick_recipe_takes_its_images(recipe):
    config = load(files(recipe, True))
    size = config.data.image_size or {"fashion_mnist": 28}.get(config.data.source, 32)
    model = build_classifier(
        config.model.name, classes=10, channels=3, image_size=size, small_stem=config.model.small_stem
    )
    assert sum(p.numel() for p in model.parameters()) < 1_000_000  # a CPU is enough


def dry_make(*words: str) -> subprocess.CompletedProcess[str]:
    """What `make reproduce` would run, also where `make test` is what runs this."""
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return subprocess.run(["make", "--dry-run", "reproduce", *words], cwd=ROOT, env=env, capture_output=True, text=True)


def test_the_small_form_of_no_recipe_is_refused():
    """Without it, QUICK=1 would run the whole default experiment."""
    done = dry_make("QUICK=1")
    assert done.returncode != 0
    assert "QUICK=1 takes the small form of a recipe: name it, CONFIG=config/experiments/NAME.yaml" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["CONFIG=a/b.yaml"], "a/b.yaml"),
        (["CONFIG=a/b.yaml", "QUICK=1"], "a/b.yaml a/b_quick.yaml"),
        (["CONFIG=a/b.yaml", "QUICK=1", "OVERLAY=c.yaml"], "a/b.yaml a/b_quick.yaml c.yaml"),
        (["OVERLAY=c.yaml"], "c.yaml"),
        ([], ""),
    ],
)
def test_make_lays_the_files_over_each_other_in_this_order(words, expected):
    done = dry_make("--old-file", ".venv/.setup-done", *words)
    assert done.returncode == 0, done.stderr
    check, run = (line.split() for line in done.stdout.splitlines()[:2])
    assert check == ["sama", "config", "check", *expected.split()]
    assert run[-len(expected.split()) - 1 :] == (["--configfile", *expected.split()] if expected else ["rules"])
