"""The stages that train on texts: every method, what it may see, and that an interruption changes nothing."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, load_file

from sama.bilevel import checkpoint
from sama.config import WEIGHTING, TextsConfig
from sama.config.texts import TextMethod
from sama.data import text_manifest
from sama.errors import SamaError
from sama.files import read_json
from sama.finetuning import METHODS, self_training
from sama.report import texts_tables
from sama.report.texts_style import looks
from sama.stages import _candidates, _texts, evaluate_texts, export_text, finetune, summarize_texts, suspect_texts, tune
from sama.stages._common import require_one_a_seed
from tests.networks import small_models
from tests.stages.small_texts import CONFIG, config, finetuned, prepared, prepared_from, with_data, written

VOTED = ["majority_vote", "meta_r", "meta_rc"]  # what the later stages are tried on


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("texts"), seeds=(0, 1, 100))


class Killed(BaseException):
    """What stands for `kill -9` here: nothing in the package catches it."""


def test_the_configuration_knows_every_method():
    assert set(get_args(TextMethod)) == set(METHODS) == set(looks(list(METHODS), "sama"))
    assert set(WEIGHTING) == {name for name, method in METHODS.items() if method.watches}


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_at_any_checkpoint_ends_byte_identical(data, tmp_path, monkeypatch, method):
    calm = finetuned(data, tmp_path / "calm", method)
    assert {"model.safetensors", "metrics.jsonl", "summary.json"} == set(calm) - {"weights.parquet"}
    assert ("weights.parquet" in calm) == METHODS[method].watches
    save, saved = checkpoint.save, []

    def save_and_die(path, state, key):
        save(path, state, key)
        saved.append(state["step"])
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    killed = {}
    while not killed and len(saved) < 9:
        torch.manual_seed(4711)  # what a process starts with
        try:
            killed = finetuned(data, tmp_path / "killed", method)
        except Killed:
            continue
    assert saved == {
        "tapt": [5, 6, 11, 16], "weak_then_clean": [5, 8], "self_training": [5, 9],
    }.get(method, [5, 10])  # fmt: skip
    assert killed == calm
    assert not (tmp_path / "killed-work").exists()


def test_seeds_that_share_a_process_are_trained_as_alone_and_none_twice(data, tmp_path, monkeypatch):
    chosen, trained = config(), []
    train_method = finetune.train_method

    def counted(*args: Any, seed: int, **options: Any) -> Any:
        trained.append(seed)
        return train_method(*args, seed=seed, **options)

    monkeypatch.setattr(finetune, "train_method", counted)

    def together(*seeds: int) -> dict[int, dict[str, bytes]]:
        out = tuple(tmp_path / f"seed{seed}" for seed in seeds)
        finetune.run(
            texts=data / "texts.parquet", manifest=tuple(data / f"seed{seed}" / "manifest.parquet" for seed in seeds),
            method="meta_r", out=out, work=tmp_path / "work", seed=seeds, data=chosen.data, model=chosen.model,
            training=chosen.training, meta=chosen.meta, finetuning=chosen.finetuning, runtime=chosen.runtime,
        )  # fmt: skip
        return {int(at.name[4:]): {file.name: file.read_bytes() for file in at.iterdir()} for at in out}

    both = together(0, 1)
    three = together(0, 1, 100)
    assert {seed: three[seed] for seed in (0, 1)} == both
    assert trained == [0, 1, 100]
    for seed in (1, 100):  # whatever was trained before it in the process
        manifest = data / f"seed{seed}" / "manifest.parquet"
        alone = finetuned(data, tmp_path / f"alone{seed}", "meta_r", seed=seed, manifest=manifest)
        assert alone == three[seed]
    trained.clear()
    (tmp_path / "work" / "results_seed1" / "metrics.jsonl").write_text("edited\n")
    assert together(0, 1) == both
    assert trained == [1]
    trained.clear()
    for seed in (0, 1):  # as Snakemake does before it starts a job again
        shutil.rmtree(tmp_path / f"seed{seed}")
    assert together(0, 1) == both
    assert trained == []
    trained.clear()
    monkeypatch.setattr(finetune, "machine_key", lambda key, device: f"other code {key}")
    assert together(0, 1) == both
    assert trained == [0, 1]
    for pair, match in (((0, 0), "different seeds, got 0, 0"), ((0, 1), "--manifest: expected 2, .*, got 1")):
        with pytest.raises(SamaError, match=match):
            require_one_a_seed(pair, manifest=(tmp_path,), out=(tmp_path, tmp_path))


def test_the_best_weights_on_validation_are_kept(data, tmp_path):
    files = finetuned(data, tmp_path / "best", "majority_vote")
    summary = json.loads(files["summary.json"])
    curve = {row["step"]: row["validation/accuracy"] for row in map(json.loads, files["metrics.jsonl"].splitlines())}
    assert summary["metrics"]["validation/accuracy"] == max(curve.values()) == curve[summary["best_step"]]
    last = config(training={**CONFIG["training"], "keep": "last"})
    summary = json.loads(finetuned(data, tmp_path / "last", "majority_vote", last)["summary.json"])
    assert (summary["best_step"], summary["metrics"]["validation/accuracy"]) == (12, curve[12])


def test_clean_labels_of_the_training_texts_are_never_read(data, tmp_path):
    """Nor anything of the test split: a copy with other ones trains the same models."""
    other = tmp_path / "other"
    other.mkdir()
    rows = pd.read_parquet(data / "seed0" / "manifest.parquet")
    hidden = rows["split"].isin(["train", "uncovered"])
    rows.loc[hidden, "clean_label"] = (rows.loc[hidden, "clean_label"] + 1) % 4
    rows.loc[rows["split"] == "test", ["label", "clean_label"]] = 0
    (other / "seed0").mkdir()
    rows.to_parquet(other / "seed0" / "manifest.parquet")
    (other / "seed0" / "manifest.json").write_bytes((data / "seed0" / "manifest.json").read_bytes())
    (other / "texts.parquet").write_bytes((data / "texts.parquet").read_bytes())
    (other / "tokenizer").symlink_to(data / "tokenizer")
    for method in ("meta_rc", "self_training", "weak_then_clean"):
        mine = finetuned(data, tmp_path / method, method)
        theirs = finetuned(other, tmp_path / f"{method}-other", method, manifest=other / "seed0" / "manifest.parquet")
        assert mine == theirs


def test_methods_read_the_labels_that_they_are_named_after(data, monkeypatch):
    dataset = text_manifest.load(data / "texts.parquet", data / "seed0" / "manifest.parquet")
    texts = _texts.Texts(dataset, config().model, data / "tokenizer")
    train = dataset.split("train")
    voted, estimated = (texts.training(name, "majority_vote").labels.numpy() for name in ("weak", "dawid_skene"))
    np.testing.assert_allclose(voted, train.weak["majority_vote"])
    np.testing.assert_allclose(estimated, train.weak["dawid_skene"])
    np.testing.assert_allclose(texts.training("weak", "dawid_skene").labels.numpy(), estimated)
    assert (voted != estimated).any()
    np.testing.assert_array_equal(voted.argmax(axis=1), train.label)
    np.testing.assert_array_equal(texts.held_out("meta").labels.numpy(), dataset.split("meta").clean_label)


def test_weights_are_means_of_what_the_network_says(data, tmp_path):
    finetuned(data, tmp_path / "r", "meta_r")
    table = pd.read_parquet(tmp_path / "r" / "weights.parquet")
    assert list(table) == ["sample_id", "weight", "loss"]
    assert np.all((table["weight"].to_numpy() > 0) & (table["weight"].to_numpy() < 1))
    assert len(set(table["weight"].tolist())) > 10
    finetuned(data, tmp_path / "rc", "meta_rc")
    corrected = pd.read_parquet(tmp_path / "rc" / "weights.parquet").filter(like="corrected_")
    np.testing.assert_allclose(corrected.sum(axis=1), 1.0, rtol=1e-6)


def test_pseudo_labels_by_hand():
    probabilities = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    frequency = probabilities.sum(dim=0)
    sharp = probabilities**2 / frequency
    sharp /= sharp.sum(dim=1, keepdim=True)
    confidence = 1 + (sharp * sharp.log()).sum(dim=1) / np.log(2)
    targets = self_training.pseudo_labels(probabilities, threshold=0.3)
    assert targets[1].sum() == 0  # not sure enough
    torch.testing.assert_close(targets[[0, 2]], (sharp * confidence[:, None])[[0, 2]])
    surest = self_training.pseudo_labels(probabilities, threshold=0.99)
    assert surest.sum(dim=1).nonzero().flatten().tolist() == [0]


def test_the_self_training_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    log_p = logits.log_softmax(dim=1)
    targets = torch.tensor([[0.5, 0.0], [0.0, 0.25], [0.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[0.0, 0.0], [0.3, 0.4], [9.0, 9.0]], dtype=torch.float64)
    of_labels = -(0.5 * log_p[0, 0] + 0.25 * log_p[1, 1]) / 3
    uniform = (0.5 * (-log_p[0].mean() - np.log(2)) + 0.25 * (-log_p[1].mean() - np.log(2))) / 3
    apart = (1.0 - (0.25 / 2) ** 0.5) ** 2 / 3  # one pair of two classes; the third text has no pseudo-label
    expected = of_labels + 0.7 * uniform + 0.2 * apart
    found = self_training.losses(logits, points, targets, smoothness=0.7, contrast=0.2, margin=1.0)
    torch.testing.assert_close(found, expected)


def test_the_grid_is_compared_on_validation_and_the_first_of_equals_is_chosen(data, tmp_path, monkeypatch):
    rates = [{"training": {"optimizer": {"learning_rate": rate}}} for rate in (1e-6, 0.02, 0.03)]
    chosen = config(tuning={"seeds": [100], "grids": {"default": rates}})
    tried, measures, train_method = [], [0.3, 0.6, 0.6], _candidates.train_method

    def measured(*arguments, **options):
        trained = train_method(*arguments, **options)
        tried.append(trained.validation)
        return dataclasses.replace(trained, validation=measures[len(tried) - 1])

    monkeypatch.setattr(_candidates, "train_method", measured)

    def tuned(out: Path) -> dict:
        tune.run(
            texts=data / "texts.parquet", manifests=data, method="clean_only", out=out, work=tmp_path / "work",
            data=chosen.data, model=chosen.model, training=chosen.training, meta=chosen.meta,
            finetuning=chosen.finetuning, tuning=chosen.tuning, runtime=chosen.runtime,
        )  # fmt: skip
        return read_json(out)

    found = tuned(tmp_path / "tuned.json")
    assert [row["validation"] for row in found["candidates"]] == [[measure] for measure in measures]
    assert found["chosen"] == 1
    assert len(tried) == 3
    assert not list((tmp_path / "work").iterdir())
    summary = json.loads(
        finetuned(data, tmp_path / "out", "clean_only", chosen, tuning=tmp_path / "tuned.json")["summary.json"]
    )
    assert summary["tuned"] == rates[1]
    other = finetuned(data, tmp_path / "untuned", "clean_only")
    assert other["model.safetensors"] != (tmp_path / "out" / "model.safetensors").read_bytes()


def judged(data: Path, folder: Path, chosen: TextsConfig, seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """The summary of the models that stand in `folder`."""
    evaluate_texts.run(
        texts=data / "texts.parquet", manifest=tuple(data / f"seed{seed}" / "manifest.parquet" for seed in seeds),
        models=tuple(folder / "models" / f"seed{seed}" for seed in seeds), seed=seeds,
        out=tuple(folder / f"evaluation/seed{seed}.json" for seed in seeds), data=chosen.data, model=chosen.model,
        finetuning=chosen.finetuning, runtime=chosen.runtime,
    )  # fmt: skip
    summarize_texts.run(
        evaluations=folder / "evaluation", out=folder / "summary.json", plots=folder / "plots.csv", experiment="small",
        seeds=seeds, data=chosen.data, finetuning=chosen.finetuning,
    )  # fmt: skip
    return read_json(folder / "summary.json")


@pytest.fixture(scope="module")
def results(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    chosen = config(finetuning={**CONFIG["finetuning"], "methods": VOTED})
    manifests = tuple(data / f"seed{seed}" / "manifest.parquet" for seed in (0, 1))
    models = tuple(folder / "models" / f"seed{seed}" for seed in (0, 1))
    for seed in (0, 1):
        for method in VOTED:
            finetuned(data, models[seed] / method, method, chosen, seed=seed, manifest=manifests[seed])
    judged(data, folder, chosen, (0, 1))
    return folder


def test_evaluation_and_summary_say_what_the_models_do(data, results):
    summary = read_json(results / "summary.json")
    assert summary["measured_against"] == {"validation": "clean", "test": "clean"}
    assert list(summary["test"]) == sorted(VOTED)
    assert set(summary["noise_detection"]) == {"meta_r", "meta_rc"}
    assert set(summary["correction"]) == {"meta_rc"}
    chosen = config()
    for position, seed in enumerate((0, 1)):
        dataset = text_manifest.load(data / "texts.parquet", data / f"seed{seed}" / "manifest.parquet")
        test, train = dataset.split("test"), dataset.split("train")
        texts = _texts.Texts(dataset, chosen.model, data / "tokenizer")
        model = texts.classifier(0, masked_head=False, attention="eager").eval()
        folder = results / "models" / f"seed{seed}" / "meta_r"
        model.model.load_state_dict(load_file(folder / "model.safetensors"))
        right = []
        for row, text in enumerate(test.text):
            ids = torch.tensor([texts.tokenizer(text, truncation=True, max_length=24)["input_ids"]])
            logits = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
            right.append(int(logits.argmax()) == test.clean_label[row])
        assert summary["test"]["meta_r"]["accuracy"][position] == pytest.approx(np.mean(right))
        corrected = pd.read_parquet(folder.with_name("meta_rc") / "weights.parquet").filter(like="corrected_")
        expected = (corrected.to_numpy().argmax(axis=1) == train.clean_label).mean()
        assert summary["correction"]["meta_rc"]["corrected_accuracy"][position] == pytest.approx(expected)
    assert summary["cost"]["majority_vote"] == [1.0, 1.0]


def test_where_no_clean_label_is_known_everything_says_so(tmp_path):
    """Measures are agreement with weak labels, noise detection is unknown, and summary and model card tell."""
    finetuning = {**CONFIG["finetuning"], "methods": ["meta_r"]}
    chosen = with_data(finetuning, label_column=None, meta_set="held_out", splits={"meta": 0.2, "validation": 0.2})
    data = prepared(tmp_path, chosen, seeds=(0,))
    manifest, folder = data / "seed0" / "manifest.parquet", tmp_path / "results"
    finetuned(data, folder / "models" / "seed0" / "meta_r", "meta_r", chosen, manifest=manifest)
    judged(data, folder, chosen)
    suspect_texts.run(
        texts=data / "texts.parquet", models=folder / "models", out=folder / "suspects", seeds=(0,), data=chosen.data,
        model=chosen.model, finetuning=chosen.finetuning, runtime=chosen.runtime,
    )  # fmt: skip
    summary = read_json(folder / "summary.json")
    assert summary["measured_against"] == {"validation": "weak", "test": "weak"}
    assert summary["noise_detection"] == {} and summary["test"]["meta_r"]["accuracy"]
    assert read_json(folder / "suspects" / "summary.json")["checked"] is None
    card = export_text.card(summary, "meta_r", 0, ("a", "b"), chosen.model, place=None)
    assert card.count("(against weak labels: clean ones are not known)") == 2
    assert "- Encoder: a small BERT (1 layers of width 8), trained from random weights.\n" in card
    for place, base, encoder in (
        ("bert-base-uncased", "base_model: bert-base-uncased\n", "bert-base-uncased"),
        ("google/bert_uncased", "base_model: google/bert_uncased\n", "google/bert_uncased"),
        (str(folder), "", "a local folder, results"),
    ):
        card = export_text.card(summary, "meta_r", 0, ("a", "b"), chosen.model, place=place)
        assert f"text-classification\n{base}tags:" in card and f"- Encoder: {encoder}.\n" in card
        assert str(tmp_path) not in card


def test_compiled_self_training_trains_the_same_model(data, tmp_path, monkeypatch):
    """Its first phase is compiled; what its rounds see of the model besides the logits is not."""
    short = {**CONFIG["training"], "steps": 2, "warmup_steps": 0}
    changes: dict[str, Any] = {
        "model": {**CONFIG["model"], "dropout": 0.0}, "finetuning": {"self_training": {"rounds": 1}}
    }  # fmt: skip
    plain = finetuned(data, tmp_path / "plain", "self_training", config(training=short, **changes))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    chosen = config(training={**short, "compile": True}, **changes)
    compiled = finetuned(data, tmp_path / "compiled", "self_training", chosen)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    found, expected = (load(files["model.safetensors"]) for files in (compiled, plain))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_set": "training"}, "the meta set as on clean texts, but that is the training set itself: leave"),
        (
            {"meta_set": "held_out", "label_column": None, "splits": {"meta": 0.2, "validation": 0.2}},
            "the meta set as on clean texts, but that has texts without a clean label: leave .* out, or give clean",
        ),
    ],
)
def test_methods_that_take_the_meta_set_for_clean_need_clean_labels(tmp_path, changes, message):
    chosen = with_data(**changes)
    data = prepared(tmp_path, chosen, seeds=(0,))
    for method in ("clean_only", "weak_then_clean"):
        with pytest.raises(SamaError, match=f"^finetuning.methods: {method} trains on {message}") as caught:
            finetuned(data, tmp_path / "out", method, chosen)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_that_stands_in_a_folder_goes_through_all_stages(tmp_path, kind):
    rows = (written(tmp_path / "source") / "train.jsonl").read_text().splitlines()
    torch.manual_seed(11)  # not the seed of the training
    place = small_models.save(kind, tmp_path / kind, [json.loads(row)["text"] for row in rows], 24)
    chosen = config(
        model={"name": str(place), "max_length": 24},
        training={**CONFIG["training"], "steps": 4, "optimizer": {"name": "adamw", "learning_rate": 0.001}},
        finetuning={**CONFIG["finetuning"], "methods": ["meta_r"]},
    )
    data, folder = prepared_from(tmp_path, chosen, seeds=(0,)), tmp_path / "results"
    assert not (data / "tokenizer").exists()
    finetuned(data, folder / "models" / "seed0" / "meta_r", "meta_r", chosen)
    name = f"{kind}.embeddings.word_embeddings.weight"
    before = load_file(place / "model.safetensors")[name]
    after = load_file(folder / "models" / "seed0" / "meta_r" / "model.safetensors")[name]
    assert 0 < (after - before).abs().max() < 0.01  # it began with the folder's weights
    summary = judged(data, folder, chosen)
    assert 0 <= summary["test"]["meta_r"]["accuracy"][0] <= 1
    export_text.run(
        texts=data / "texts.parquet", models=folder / "models", summary=folder / "summary.json", out=tmp_path / "out",
        model=chosen.model, runtime=chosen.runtime,
    )  # fmt: skip
    assert f"- Encoder: a local folder, {kind}.\n" in (tmp_path / "out" / "README.md").read_text()


def test_suspects_are_checked_where_a_clean_label_is_known():
    found = pd.DataFrame({"label": [0, 1, 2, 0] * 10, "clean": [1, 1, -1, 2] * 10, "guess": [1, 0, 0, 1] * 10})
    checked = suspect_texts._check(found)
    assert checked == [
        {"first": 24, "wrong": 16, "suggested_right": 8},
        {"first": 30, "wrong": 20, "suggested_right": 10},
    ]
    assert suspect_texts._check(found.assign(clean=-1)) is None
    table = texts_tables.checked_table({"suspects": 40, "checked": checked})
    assert table is not None and table.notes == ["Of the 30 of 40 suspects whose clean label is known."]
    assert [row[0].text for row in table.rows] == ["the first 24", "all suspects"]


def test_suspects_are_what_the_models_contradict(data, results, tmp_path):
    chosen = config(finetuning={**CONFIG["finetuning"], "methods": VOTED})
    suspect_texts.run(
        texts=data / "texts.parquet", models=results / "models", out=tmp_path, seeds=(0, 1), data=chosen.data,
        model=chosen.model, finetuning=chosen.finetuning, runtime=chosen.runtime,
    )  # fmt: skip
    weights, suspects = pd.read_csv(tmp_path / "weights.csv"), pd.read_csv(tmp_path / "suspect_labels.csv")
    summary = read_json(tmp_path / "summary.json")
    train = text_manifest.load(data / "texts.parquet", data / "seed0" / "manifest.parquet").split("train")
    assert set(weights["sample_id"]) == set(train.sample_id)
    assert weights["weight"].is_monotonic_increasing
    assert np.mean(weights["weight"].to_numpy()) == pytest.approx(1.0, abs=1e-4)
    assert summary["suspects"] == len(suspects) > 0
    observed = suspects["observed"].tolist()
    assert all(mine != theirs for mine, theirs in zip(observed, suspects["suggested"].tolist(), strict=True))
    assert suspects["suspicion"].is_monotonic_decreasing
    clean = dict(zip(train.sample_id, train.clean_label, strict=True))
    names = ["cooking", "finance", "health", "travel"]
    wrong = sum(names[clean[i]] != name for i, name in zip(suspects["sample_id"].tolist(), observed, strict=True))
    assert summary["checked"][-1]["wrong"] == wrong


def test_the_exported_model_is_one_that_transformers_reads(data, results, tmp_path):
    from transformers import pipeline

    chosen = config()
    export_text.run(
        texts=data / "texts.parquet", models=results / "models", summary=results / "summary.json",
        out=tmp_path / "model", model=chosen.model, runtime=chosen.runtime,
    )  # fmt: skip
    card = (tmp_path / "model" / "README.md").read_text()
    assert "chosen by accuracy on validation among" in card
    classify = pipeline("text-classification", str(tmp_path / "model"))
    assert classify("we booked a hotel near the station")[0]["label"] in ("travel", "cooking", "health", "finance")


@pytest.mark.parametrize(
    ("changes", "method", "message"),
    [
        ({}, "majority", "unknown method 'majority', expected one of majority_vote, "),
        ({"model": {**CONFIG["model"], "name": "no/such-model"}}, "majority_vote", "set model.name to that folder"),
    ],
)
def test_what_does_not_fit_is_one_line(data, tmp_path, monkeypatch, changes, method, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    with pytest.raises(SamaError, match=message) as caught:
        finetuned(data, tmp_path / "out", method, config(**changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
