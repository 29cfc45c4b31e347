"""The stages that learn, by themselves: what they may see, what they cost, and that an interruption changes nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sama import meta_training
from sama.bilevel import checkpoint
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import StepResult, Weighting
from sama.config import Config, RetrainConfig, TrainingConfig, validate
from sama.data import manifest as manifests
from sama.errors import SamaError
from sama.files import read_json, write_json
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from sama.stages import _common, _images, evaluate, meta_train, prepare, retrain, score, select, summarize
from sama.stages._keys import run_key
from sama.stages._processes import Processes
from tests.stages.small_digits import DATA

METRICS = {"batch_size": 16, "log_every": 3, "checkpoint_every": 5, "augment": {"crop_padding": 1}}
CONFIG = {
    "data": DATA,
    "model": {"drop_rate": 0.3},  # so that the random state matters
    "training": {"steps": 12, **METRICS},
    "meta": {"unroll_steps": 3, "batch_size": 20, "training": {"steps": 16, **METRICS}},
    "scores": {"methods": ["meta_weight", "random", "el2n"], "el2n": {"models": 2, "steps": 3}},
    "selection": {"pruning_ratios": [0.5]},
    "runtime": {"device": "cpu"},
}


EPOCHS = RetrainConfig(budget="epochs")


def config(**changes: Any) -> Config:
    return validate({**CONFIG, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare.run(out=folder, seeds=(0,), data_root=None, data=config().data)
    return folder


def paths(data: Path) -> dict[str, Any]:
    return {"images": data / "images.npy", "manifest": data / "seed0" / "manifest.parquet"}


def meta_trained(data: Path, out: Path, settings: Config | None = None) -> dict[str, bytes]:
    chosen = settings or config()
    meta_train.run(
        **paths(data), out=out, work=out.with_name(out.name + "-work"), seed=0, model=chosen.model, meta=chosen.meta,
        runtime=chosen.runtime,
    )  # fmt: skip
    return contents(out)


def retrained(data: Path, out: Path, **options: Any) -> dict[str, bytes]:
    chosen = config()
    retrain.run(
        **paths(data), cell="full", out=out, work=out.with_name(out.name + "-work"), model=chosen.model,
        runtime=chosen.runtime, **{"seed": 0, "training": chosen.training, "retrain": chosen.retrain, **options},
    )  # fmt: skip
    return contents(out)


STAGES = {"meta_train": meta_trained, "retrain": retrained}


def scored(data: Path, out: Path, method: str, weights: Path | None = None) -> dict[str, Any]:
    chosen = config()
    score.run(
        **paths(data), method=method, weights=weights, out=out, summary=out.with_suffix(".json"),
        work=out.with_name("work"), seed=0, model=chosen.model, training=chosen.training, scores=chosen.scores,
        runtime=chosen.runtime,
    )  # fmt: skip
    return read_json(out.with_suffix(".json"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def changed(data: Path, folder: Path, change) -> Path:
    """A copy of the prepared data whose manifest went through `change(frame, pixels)`; its hash is not renewed."""
    (folder / "seed0").mkdir(parents=True)
    frame, pixels = pd.read_parquet(data / "seed0" / "manifest.parquet"), np.load(data / "images.npy")
    change(frame, pixels)
    frame.to_parquet(folder / "seed0" / "manifest.parquet", index=False)
    np.save(folder / "images.npy", pixels)
    (folder / "seed0" / "manifest.json").write_bytes((data / "seed0" / "manifest.json").read_bytes())
    return folder


class Killed(BaseException):
    """What stands for `kill -9` here: nothing in the package catches it."""


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_at_any_checkpoint_ends_byte_identical(data, tmp_path, monkeypatch, stage):
    calm = STAGES[stage](data, tmp_path / "calm")
    save, saved = checkpoint.save, []

    def save_and_die(path, state, key):
        save(path, state, key)
        saved.append(state["step"])
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in range({"meta_train": 3, "retrain": 2}[stage]):  # it dies at every checkpoint in turn
        with pytest.raises(Killed):
            STAGES[stage](data, tmp_path / "killed")
        torch.manual_seed(4711)  # what the next process starts with
    assert saved == ([5, 10, 15] if stage == "meta_train" else [5, 10])
    assert STAGES[stage](data, tmp_path / "killed") == calm
    assert not (tmp_path / "killed-work").exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("at", ["metrics.jsonl", "checkpoint.pt"])
def test_killed_while_it_clears_up_ends_byte_identical(data, tmp_path, monkeypatch, stage, at):
    calm = STAGES[stage](data, tmp_path / "calm")
    unlink = Path.unlink

    def unlink_or_die(path, missing_ok=False):
        if path.parent.name == "killed-work" and path.name == at:
            raise Killed
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", unlink_or_die)
        STAGES[stage](data, tmp_path / "killed")
    assert STAGES[stage](data, tmp_path / "killed") == calm


def test_a_file_that_a_kill_left_half_written_goes_away(data, tmp_path):
    (tmp_path / "out-work").mkdir()
    (tmp_path / "out-work" / ".checkpoint.pt.abc123").write_bytes(b"half")
    retrained(data, tmp_path / "out")
    assert not (tmp_path / "out-work").exists()


def test_a_checkpoint_serves_only_the_run_that_made_it(data, tmp_path, monkeypatch):
    kept = tmp_path / "kept.parquet"
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    train = dataset.split("train")
    pd.DataFrame({"sample_id": train.sample_id[:40]}).to_parquet(kept)
    runs = [{}, {"seed": 1}, {"labels": "clean"}, {"kept": kept}, {"kept": kept, "retrain": EPOCHS}]
    keys = []

    def stop(path, state, key):
        keys.append(key)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", stop)

    def attempt(**options):
        with pytest.raises(Killed):
            retrained(data, tmp_path / "out", **options)

    for options in runs:
        attempt(**options)
    assert len(set(keys)) == len(runs)
    other = dataclasses.replace(dataset, content_hash="0" * 64)
    assert run_key("retrain", 0, dataset) != run_key("retrain", 0, other)


def test_a_checkpoint_of_other_code_torch_device_or_threads_is_not_continued(tmp_path, monkeypatch):
    def key(device: str = "cpu") -> str:
        with _common.Run(tmp_path / "work", "key", torch.device(device)) as state:
            return state.key

    keys = [key(), key("cuda")]
    for owner, name, value in (
        (_common, "source_hash", lambda: "other code"),
        (torch, "__version__", "0.0"),
        (torch, "get_num_threads", lambda: 1000),  # float sums depend on it
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            keys.append(key())
    assert len(set(keys)) == 5
    assert key() == keys[0]


def garbage_clean(frame, pixels):
    frame["clean_label"] = np.random.default_rng(0).integers(-10, 1000, len(frame))


def garbage_test(frame, pixels):
    test = (frame["split"] == "test").to_numpy()
    frame.loc[test, "label"] = 0
    pixels[frame["row"].to_numpy()[test]] = 7


@pytest.mark.parametrize("change", [garbage_clean, garbage_test])
def test_no_learner_sees_a_clean_label_or_the_test_split(data, tmp_path, change):
    other = changed(data, tmp_path / "other", change)
    assert meta_trained(data, tmp_path / "meta") == meta_trained(other, tmp_path / "other-meta")
    assert retrained(data, tmp_path / "model") == retrained(other, tmp_path / "other-model")
    weights = tmp_path / "meta" / "weights.parquet"
    for method in ("meta_weight", "random", "el2n"):
        scored(data, tmp_path / f"{method}.parquet", method, weights)
        scored(other, tmp_path / "again.parquet", method, weights)
        assert (tmp_path / f"{method}.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
        for source, name in ((data, "one"), (other, "two")):
            select.run(
                scores=tmp_path / f"{method}.parquet", manifest=paths(source)["manifest"], ratio=0.5,
                out=tmp_path / name, selection=config(selection={"strategy": "class_balanced"}).selection,
            )  # fmt: skip
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("options", [{}, {"difference": "one_sided"}], ids=["central", "one-sided"])
def test_the_cost_of_meta_training_is_what_went_through_the_model(data, tmp_path, monkeypatch, options):
    seen = {"forward": 0, "backward": 0}
    build = meta_train.classifier

    def counted(model, dataset, seed):
        network = build(model, dataset, seed)
        teacher_of = EMATeacher.forward

        def student(module, inputs, output):
            if module.training:  # logging runs in eval mode and is not counted
                seen["forward"] += len(inputs[0])
                if output.requires_grad:
                    seen["backward"] += len(inputs[0])

        def teacher(self, inputs):
            seen["forward"] += len(inputs)
            return teacher_of(self, inputs)

        network.register_forward_hook(student)
        monkeypatch.setattr(EMATeacher, "forward", teacher)
        return network

    monkeypatch.setattr(meta_train, "classifier", counted)
    meta_trained(data, tmp_path / "out", config(meta={**CONFIG["meta"], "options": options}))
    cost = read_json(tmp_path / "out" / "summary.json")["cost"]
    assert cost == {"forward_examples": seen["forward"], "backward_examples": seen["backward"]}


def test_the_base_and_the_meta_level_draw_from_streams_of_their_own(data, tmp_path, monkeypatch):
    made = []

    class Recorded(ShuffledBatches):
        def __init__(self, examples, batch_size, seed, make, **settings):
            made.append((examples, batch_size, seed))
            super().__init__(examples, batch_size, seed, make, **settings)

    monkeypatch.setattr(meta_training, "ShuffledBatches", Recorded)
    chosen = config()
    for seed in (0, 1, 2):
        meta_train.run(
            **paths(data), out=tmp_path / str(seed), work=tmp_path / "work", seed=seed, model=chosen.model,
            meta=chosen.meta, runtime=chosen.runtime,
        )  # fmt: skip
    assert [row[:2] for row in made[:2]] == [(80, 16), (30, 20)]
    assert len({seed for _, _, seed in made}) == len(made)
    assert len({(tmp_path / str(seed) / "weights.parquet").read_bytes() for seed in (0, 1, 2)}) == 3


WATCH_FROM_TWO = {"unroll_steps": 1, "score_from": 0.1, "training": {"steps": 10, "batch_size": 4}}


def test_watched_weights_by_hand():
    network = MetaWeightNetwork(2, 3)
    torch.nn.init.normal_(network.output.weight)
    student = torch.nn.Linear(1, 2)
    program = Reweight(
        student, network, features=("loss", "uncertainty"), teacher=EMATeacher(student, 0.5), normalize=True
    )
    watched = meta_train._watched(program, config(meta=WATCH_FROM_TWO).meta, 3)

    def step(number, indices, features):
        indices, features = torch.tensor(indices), torch.tensor(features)
        batch = LabelledBatch(torch.zeros(len(indices), 1), torch.zeros(len(indices)), indices)
        weights = program.weights(dict(network.named_parameters()), features)
        result = Weighting(weights, torch.zeros(len(indices)), features)
        watched.watch(StepResult(number, (batch,), torch.zeros(()), None, (result,)))
        return network(features).tolist()

    step(1, [0, 1, 2], [[9.0, 9.0], [9.0, 9.0], [9.0, 9.0]])  # before the first step that counts
    two = step(2, [0, 1], [[1.0, 2.0], [3.0, 4.0]])
    three = step(3, [2, 0, 0], [[5.0, 6.0], [7.0, 8.0], [4.0, 2.0]])  # a small split is visited twice in a batch
    means = watched.means()
    assert list(means) == ["weight", "loss", "uncertainty"]
    np.testing.assert_allclose(means["weight"], [(two[0] + three[1] + three[2]) / 3, two[1], three[0]], rtol=1e-6)
    np.testing.assert_allclose(means["loss"], [4.0, 3.0, 5.0])
    np.testing.assert_allclose(means["uncertainty"], [4.0, 4.0, 6.0])


def test_meta_training_hands_its_settings_on(data, tmp_path, monkeypatch):
    changes = {"ema_decay": 0.25, "score_from": 0.25, "alpha": 0.2, "method": "sama_na", "options": {"displace": True}}
    chosen = config(meta={**CONFIG["meta"], **changes})
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    training, meta_examples = _images.examples(dataset, "train"), _images.examples(dataset, "meta")
    device = torch.device("cpu")
    model = _images.classifier(chosen.model, dataset, 0)
    trainer = meta_train._assemble(model, training, meta_examples, chosen.meta, 0, device, Processes())
    assert trainer.teacher.decay == 0.25
    assert trainer.loop.alpha == 0.2
    assert (trainer.loop.method.name, trainer.loop.method.knobs) == ("sama_na", {"displace": True})
    assert trainer.loop.unroll_steps == 3
    started = [parameter.clone() for parameter in trainer.teacher.model.parameters()]
    assert meta_train._watched(trainer.program, chosen.meta, len(training)).first_step == 5  # of 16: the last twelve
    rate = trainer.loop.base_optimizer.param_groups[0]["lr"]
    trainer.loop.step()
    assert trainer.loop.base_optimizer.param_groups[0]["lr"] < rate  # cosine
    moved = zip(trainer.teacher.model.parameters(), started, model.parameters(), strict=True)
    assert all(torch.allclose(mine, 0.25 * old + 0.75 * new, atol=1e-6) for mine, old, new in moved)


def test_meta_training_runs_in_training_mode(data, tmp_path):
    meta_trained(data, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors")["bn1.num_batches_tracked"] == 16


def test_too_few_visits_are_refused(data, tmp_path):
    few = config(meta={"training": {"steps": 4, "batch_size": 16}})
    with pytest.raises(SamaError, match="visit 64 examples, expected at least twice the 80"):
        meta_trained(data, tmp_path / "out", few)
    assert not (tmp_path / "out").exists()


def test_a_method_that_does_not_suit_the_model_is_one_line(data, tmp_path):
    chosen = config(meta={**CONFIG["meta"], "method": "exact", "options": {"limit": 50}})
    with pytest.raises(SamaError, match=r"^meta.method exact: exact solves a dense system .* expected at most 50, got"):
        meta_trained(data, tmp_path / "out", chosen)


def test_scores_count_what_they_train(data, tmp_path, monkeypatch):
    from sama.stages import _passes

    seeds, train = [], _passes.train

    def recorded(*arguments, seed, **options):
        seeds.append(seed)
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(_passes, "train", recorded)
    made = scored(data, tmp_path / "el2n.parquet", "el2n")
    # two models of three steps on 16 examples, each read over the 80 training examples afterwards
    assert made["cost"] == {"forward_examples": 2 * (3 * 16 + 80), "backward_examples": 2 * 3 * 16}
    assert len(set(seeds)) == 2
    assert not set(seeds) & set(range(1000))  # not a replicate's
    assert scored(data, tmp_path / "random.parquet", "random")["cost"] == {
        "forward_examples": 0, "backward_examples": 0
    }  # fmt: skip
    meta_trained(data, tmp_path / "meta")
    meta = read_json(tmp_path / "meta" / "summary.json")["cost"]
    assert scored(data, tmp_path / "m.parquet", "meta_weight", tmp_path / "meta" / "weights.parquet")["cost"] == meta
    assert sum(meta.values()) > 0
    weights = pd.read_parquet(tmp_path / "meta" / "weights.parquet")
    weights[::-1].to_parquet(tmp_path / "meta" / "weights.parquet", index=False)
    with pytest.raises(SamaError, match="its sample ids are not those of split train"):
        scored(data, tmp_path / "m.parquet", "meta_weight", tmp_path / "meta" / "weights.parquet")


def test_a_score_does_not_depend_on_which_others_are_asked_for(data, tmp_path):
    chosen = config()
    hashes = []
    for methods in (("random",), ("random", "margin")):
        out = tmp_path / f"{len(methods)}.parquet"
        score.run(
            **paths(data), method="random", out=out, summary=out.with_suffix(".json"), work=out.with_name("work"),
            seed=0, model=chosen.model, training=chosen.training,
            scores=chosen.scores.model_copy(update={"methods": methods}), runtime=chosen.runtime,
        )  # fmt: skip
        hashes.append(read_json(out.with_suffix(".json"))["content_hash"])
    assert hashes[0] == hashes[1]


def test_models_behind_a_score_train_no_longer_than_the_schedule(data, tmp_path):
    chosen = config(training={"steps": 2})
    with pytest.raises(SamaError, match=r"scores\.el2n\.steps: expected at most training\.steps = 2, got 3"):
        score.run(
            **paths(data),
            method="el2n",
            out=tmp_path / "s.parquet",
            summary=tmp_path / "s.json",
            work=tmp_path / "work",
            seed=0,
            model=chosen.model,
            training=chosen.training,
            scores=chosen.scores,
            runtime=chosen.runtime,
        )
    assert not list(tmp_path.iterdir())


def test_selection_keeps_the_highest_scores(data, tmp_path):
    frame = pd.read_parquet(paths(data)["manifest"])
    train = frame.loc[frame["split"] == "train"]  # the manifest is sorted by sample_id
    values = np.arange(len(train), dtype=np.float64)[::-1]
    pd.DataFrame({"sample_id": train["sample_id"], "score": values}).to_parquet(tmp_path / "s.parquet", index=False)
    arguments = {"manifest": paths(data)["manifest"], "ratio": 0.25, "out": tmp_path / "k.parquet"}
    select.run(scores=tmp_path / "s.parquet", selection=config().selection, **arguments)
    assert pd.read_parquet(tmp_path / "k.parquet")["sample_id"].tolist() == train["sample_id"].tolist()[:60]
    shuffled = pd.read_parquet(tmp_path / "s.parquet")[::-1]
    shuffled.to_parquet(tmp_path / "s.parquet", index=False)
    with pytest.raises(SamaError, match="its sample ids are not those of split train"):
        select.run(scores=tmp_path / "s.parquet", selection=config().selection, **arguments)


def test_kept_examples_come_with_their_own_images_and_labels(data):
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    train = dataset.split("train")
    chosen = [3, 17, 40]
    kept = _images.examples(dataset, "train", kept=train.sample_id[chosen])
    assert kept.labels.tolist() == train.label[chosen].tolist()
    np.testing.assert_array_equal(np.asarray(kept.images), np.asarray(train.images)[chosen])
    assert train.clean_label is not None
    clean = _images.examples(dataset, "train", labels="clean", kept=train.sample_id[chosen])
    assert clean.labels.tolist() == train.clean_label[chosen].tolist()
    with pytest.raises(SamaError, match="kept id nowhere is not in split train"):
        _images.examples(dataset, "train", kept=np.array(["nowhere"]))


def test_retraining_follows_kept_and_labels(data, tmp_path):
    whole = retrained(data, tmp_path / "whole")
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    train = dataset.split("train")
    pd.DataFrame({"sample_id": train.sample_id}).to_parquet(tmp_path / "all.parquet")
    everything = retrained(data, tmp_path / "all", kept=tmp_path / "all.parquet")
    assert everything["model.safetensors"] == whole["model.safetensors"]
    clean = retrained(data, tmp_path / "clean", labels="clean")
    assert clean["model.safetensors"] != whole["model.safetensors"]
    zeros = train.label == 0  # the nine other classes have no example left
    pd.DataFrame({"sample_id": train.sample_id[~zeros]}).to_parquet(tmp_path / "part.parquet")
    retrained(data, tmp_path / "part", kept=tmp_path / "part.parquet")
    summary = read_json(tmp_path / "part" / "summary.json")
    assert summary["examples"] == (~zeros).sum()
    assert summary["examples_by_class"]["0"] == 0
    assert summary["cost"] == {"forward_examples": 12 * 16, "backward_examples": 12 * 16}
    other = retrained(data, tmp_path / "seed1", seed=1)
    assert other["model.safetensors"] != whole["model.safetensors"]


def first_examples(data: Path, out: Path, count: int) -> Path:
    """A kept list of the first `count` of the 80 training examples."""
    train = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet").split("train")
    pd.DataFrame({"sample_id": train.sample_id[:count]}).to_parquet(out)
    return out


def test_the_budget_of_epochs_is_the_recipe_with_fewer_steps(data, tmp_path):
    kept = first_examples(data, tmp_path / "kept.parquet", 40)
    training = TrainingConfig.model_validate({"steps": 12, "warmup_steps": 4, **METRICS})
    half = training.model_copy(update={"steps": 6, "warmup_steps": 2})
    found = retrained(data, tmp_path / "epochs", kept=kept, training=training, retrain=EPOCHS)
    assert found == retrained(data, tmp_path / "steps", kept=kept, training=half)
    summary = read_json(tmp_path / "epochs" / "summary.json")
    assert summary["steps"] == 6 and summary["cost"] == {"forward_examples": 6 * 16, "backward_examples": 6 * 16}
    lines = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines] == [3, 6]  # every third step, as before
    assert lines[-1]["learning_rate"] == 0.0  # the cosine ends with the training
    whole = retrained(data, tmp_path / "whole", training=training, retrain=EPOCHS)
    assert whole == retrained(data, tmp_path / "same", training=training)


@pytest.mark.parametrize(("kept", "steps", "warmup"), [(80, 12, 4), (41, 6, 2), (54, 8, 3), (3, 1, 0), (1, 1, 0)])
def test_steps_of_the_budgets_by_hand(kept, steps, warmup):
    training = TrainingConfig(steps=12, warmup_steps=4)
    fewer = retrain.budgeted(training, "epochs", kept=kept, examples=80)
    assert fewer == training.model_copy(update={"steps": steps, "warmup_steps": warmup})
    assert retrain.budgeted(training, "steps", kept=kept, examples=80) == training


def test_a_shortened_retraining_is_continued_where_it_was(data, tmp_path, monkeypatch):
    options = {"kept": first_examples(data, tmp_path / "kept.parquet", 50), "retrain": EPOCHS}
    calm = retrained(data, tmp_path / "calm", **options)
    save = checkpoint.save

    def save_and_die(path, state, key):
        save(path, state, key)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", save_and_die)
        retrained(data, tmp_path / "killed", **options)
    saved = tmp_path / "killed-work" / "checkpoint.pt"
    assert saved.is_file()
    seen: list[int] = []
    monkeypatch.setattr(checkpoint, "save", lambda path, state, key: seen.append(state["step"]))
    assert retrained(data, tmp_path / "killed", **options) == calm
    assert seen == []  # steps 6 to 8 of 8: nothing was run twice


def test_initialisation_follows_the_seed_alone(data):
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")

    def first(seed):
        torch.rand(seed + 3)
        return next(_images.classifier(config().model, dataset, seed).parameters())

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def skewed_test(frame, pixels):
    frame.loc[frame["split"] == "test", "label"] = np.repeat(np.arange(6), [20, 15, 10, 8, 5, 2])


@pytest.fixture
def planted(data: Path, tmp_path: Path) -> dict[str, Any]:
    """Models that always answer one class, and scores that know the wrong labels: every number is known by hand."""
    data = changed(data, tmp_path / "data", skewed_test)
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet")
    chosen = config()
    train = dataset.split("train")
    answers = {"models/full": 0, "models/clean": 1, "meta": 2}
    answers |= {f"models/{method}_0.5": 3 + k for k, method in enumerate(chosen.scores.methods)}
    for folder, answer in answers.items():
        network = _images.classifier(chosen.model, dataset, 0)
        head = network.get_submodule("fc")
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.zero_()
            head.bias[answer] = 1.0  # type: ignore[index]
        _common.save_weights(tmp_path / folder / "model.safetensors", network)
        write_json(
            tmp_path / folder / "summary.json", {"cost": {"forward_examples": 10, "backward_examples": 10 + answer}}
        )
    wrong = train.label != train.clean_label
    values = {"meta_weight": 1.0 - wrong, "random": np.zeros(len(wrong)), "el2n": 1.0 * wrong}
    for k, (method, value) in enumerate(values.items()):
        (tmp_path / "scores").mkdir(exist_ok=True)
        frame = pd.DataFrame({"sample_id": train.sample_id, "score": value})
        frame.to_parquet(tmp_path / "scores" / f"{method}.parquet", index=False)
        write_json(
            tmp_path / "scores" / f"{method}.json", {"cost": {"forward_examples": 30 * k, "backward_examples": 15 * k}}
        )
    test = dataset.split("test")
    return {
        "arguments": {
            **paths(data), "models": tmp_path / "models", "meta": tmp_path / "meta", "scores_dir": tmp_path / "scores",
            "out": tmp_path / "evaluation.json", "seed": 0, "model": chosen.model, "scores": chosen.scores,
            "selection": chosen.selection, "runtime": chosen.runtime,
        },
        "share": {folder: float((test.label == answer).mean()) for folder, answer in answers.items()},
        "wrong": wrong,
    }  # fmt: skip


def test_evaluation_by_hand(planted: dict[str, Any]) -> None:
    evaluate.run(**planted["arguments"])
    found, share = read_json(planted["arguments"]["out"]), planted["share"]
    assert found["examples"] == 60
    assert found["accuracy"] == {
        "full": share["models/full"],
        "clean": share["models/clean"],
        "meta": share["meta"],
        "pruned": {m: {"0.5": share[f"models/{m}_0.5"]} for m in ("meta_weight", "random", "el2n")},
    }
    assert len(set(share.values())) == 6
    detection = found["noise_detection"]
    assert detection["meta_weight"] == {"auc": 1.0, "average_precision": 1.0}
    assert detection["el2n"]["auc"] == 0.0  # higher = keep, and EL2N keeps the wrong ones
    assert detection["random"] == {"auc": 0.5, "average_precision": pytest.approx(planted["wrong"].mean())}
    # forward 1, backward 2: 30 for the full training; 30 k + 2 · 15 k for the scores
    assert found["search_cost"] == {"meta_weight": 0.0, "random": 2.0, "el2n": 4.0}


def test_evaluation_refuses_the_scores_of_other_data(planted: dict[str, Any]) -> None:
    path = planted["arguments"]["scores_dir"] / "meta_weight.parquet"
    pd.read_parquet(path)[::-1].to_parquet(path, index=False)
    with pytest.raises(SamaError, match=r"meta_weight\.parquet: its sample ids are not those of split train"):
        evaluate.run(**planted["arguments"])
    assert not planted["arguments"]["out"].exists()


def test_summary_by_hand(tmp_path: Path) -> None:
    def one(seed: int, detected: tuple[str, ...]) -> None:
        content = {
            "accuracy": {
                "full": 0.1 + seed, "clean": 0.2 + seed, "meta": 0.3 + seed,
                "pruned": {"random": {"0.5": 0.4 + seed}, "el2n": {"0.5": 0.5 + seed}},
            },
            "noise_detection": {m: {"auc": 0.6 + seed, "average_precision": 0.7 + seed} for m in detected},
            "search_cost": {"random": 0.0, "el2n": 1.0 + seed},
        }  # fmt: skip
        write_json(tmp_path / f"seed{seed}.json", content)

    one(7, ("random", "el2n"))
    one(3, ("random",))
    chosen = config(scores={"methods": ["random", "el2n"]})
    arguments = {"evaluations": tmp_path, "out": tmp_path / "s.json", "plots": tmp_path / "p.csv", "experiment": "x"}
    summarize.run(**arguments, seeds=(7, 3), scores=chosen.scores, selection=chosen.selection)
    assert read_json(tmp_path / "s.json") == {
        "experiment": "x",
        "seeds": [7, 3],
        "full": {"accuracy": [7.1, 3.1]},
        "clean": {"accuracy": [7.2, 3.2]},
        "meta": {"accuracy": [7.3, 3.3]},
        "pruned": {"random": {"0.5": {"accuracy": [7.4, 3.4]}}, "el2n": {"0.5": {"accuracy": [7.5, 3.5]}}},
        "noise_detection": {"random": {"auc": [7.6, 3.6], "average_precision": [7.7, 3.7]}},
        "search_cost": {"random": [0.0, 0.0], "el2n": [8.0, 4.0]},
    }
    assert (tmp_path / "p.csv").read_text().splitlines()[1:3] == ["random,0.5,7,7.4", "random,0.5,3,3.4"]
