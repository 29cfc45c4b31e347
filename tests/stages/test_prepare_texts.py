"""`prepare_texts`: who stands in which split with which label, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sama.config import TextsConfig
from sama.data.text_manifest import load
from sama.data.texts.synthetic import FUNCTIONS
from sama.errors import SamaError
from sama.stages._texts import Texts
from tests.stages.small_texts import CONFIG, SIZES, config, edited, prepared, prepared_from, with_data, written

FIRST = next(iter(FUNCTIONS))
SILENT = dict.fromkeys(FUNCTIONS)
WEAK = with_data(label_column=None, meta_set="held_out", splits={"meta": 18, "validation": 0.1, "test": None})


def manifest(data: Path, seed: int = 0) -> Any:
    return pd.read_parquet(data / f"seed{seed}" / "manifest.parquet")


def facts(data: Path, seed: int = 0) -> dict[str, Any]:
    return json.loads((data / f"seed{seed}" / "manifest.json").read_text())


def ids(data: Path, split: str, seed: int = 0) -> set[str]:
    rows = manifest(data, seed)
    return set(rows["sample_id"][rows["split"] == split])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("texts"))


def test_every_text_stands_in_one_split_with_the_labels_of_its_source(data):
    rows, texts = manifest(data), pd.read_parquet(data / "texts.parquet")
    assert load(data / "texts.parquet", data / "seed0" / "manifest.parquet").split("test").known
    assert list(rows) == ["sample_id", "split", "label", "clean_label", "majority_vote", "dawid_skene"]
    assert rows["sample_id"].is_unique and set(rows["sample_id"]) == set(texts["sample_id"])
    clean = dict(zip(texts["sample_id"].tolist(), texts["clean_label"].tolist(), strict=True))
    assert rows["clean_label"].tolist() == [clean[sample_id] for sample_id in rows["sample_id"].tolist()]
    counts = rows["split"].value_counts().to_dict()
    assert counts == facts(data)["examples"]
    assert counts["train"] + counts["uncovered"] == SIZES["train"] and counts["uncovered"] > 0
    assert (counts["meta"], counts["validation"], counts["test"]) == (10, 10, 16)
    for split in ("meta", "validation", "test"):
        part = rows[rows["split"] == split]
        assert (part["label"] == part["clean_label"]).all()
        assert part["majority_vote"].isna().all()


def test_training_labels_come_from_votes_alone(data, tmp_path):
    """Other clean labels of the training texts change no other column of the manifest."""
    written(tmp_path / "source")
    edited(tmp_path / "source" / "train.jsonl", lambda number, row: row | {"label": "travel"})
    other, rows = manifest(prepared_from(tmp_path, config())), manifest(data)
    assert (other["clean_label"] != rows["clean_label"]).any()
    assert (rows["label"] != rows["clean_label"])[rows["split"] == "train"].any()
    pd.testing.assert_frame_equal(other.drop(columns="clean_label"), rows.drop(columns="clean_label"))


def test_the_division_is_by_seed_and_the_texts_are_not(data):
    assert ids(data, "meta", 0) != ids(data, "meta", 1)
    assert ids(data, "meta", 0) | ids(data, "validation", 0) == ids(data, "meta", 1) | ids(data, "validation", 1)
    assert ids(data, "train", 0) == ids(data, "train", 1)
    assert facts(data, 0)["content_hash"] != facts(data, 1)["content_hash"]


@pytest.mark.parametrize("column", ["text", FIRST, "label"])
def test_the_hash_is_of_texts_votes_and_labels(data, tmp_path, column):
    again = prepared(tmp_path / "again")
    assert facts(again)["content_hash"] == facts(data)["content_hash"]
    other = {"text": "one other text", FIRST: "travel", "label": "travel"}[column]
    written(tmp_path / "source")
    edited(tmp_path / "source" / "train.jsonl", lambda number, row: row | ({column: other} if number < 4 else {}))
    assert facts(prepared_from(tmp_path, config()))["content_hash"] != facts(data)["content_hash"]


def test_uncovered_texts_are_dropped_or_uniform(data, tmp_path):
    kept = prepared(tmp_path, with_data(uncovered="uniform"))
    dropped, rows = ids(data, "uncovered"), manifest(kept).set_index("sample_id")
    assert ids(kept, "train") == ids(data, "train") | dropped and not ids(kept, "uncovered")
    for name in dropped:
        assert rows.loc[name, "label"] == -1
        np.testing.assert_allclose(rows.loc[name, "majority_vote"], 0.25)
    assert facts(kept)["weak_accuracy"] == facts(data)["weak_accuracy"]  # nothing is said of them


def test_soft_labels_are_the_shares_of_the_votes(data, tmp_path):
    written(tmp_path / "source")
    votes = dict(zip(FUNCTIONS, ("travel", "travel", "health", "cooking"), strict=False))
    edited(tmp_path / "source/train.jsonl", lambda number, row: row | ({**SILENT, **votes} if number == 0 else {}))
    soft = prepared_from(tmp_path, with_data(labels="soft"))
    train = load(soft / "texts.parquet", soft / "seed0" / "manifest.parquet").split("train")
    row = train.sample_id.tolist().index("train.jsonl/00000")
    np.testing.assert_allclose(train.weak["majority_vote"][row], [0.25, 0, 0.25, 0.5])
    hard = prepared_from(tmp_path, config())
    train = load(hard / "texts.parquet", hard / "seed0" / "manifest.parquet").split("train")
    np.testing.assert_array_equal(train.weak["majority_vote"][row], [0, 0, 0, 1])


def test_without_clean_labels_the_held_out_splits_have_weak_ones_and_no_lots(tmp_path):
    """Texts on which all functions abstain have no label and measure nothing, in the source's own splits too."""
    written(tmp_path / "source")
    edited(tmp_path / "source" / "test.jsonl", lambda number, row: row | (SILENT if number < 3 else {}))
    out = prepared_from(tmp_path, WEAK)
    rows = manifest(out)
    assert (rows["clean_label"] == -1).all() and facts(out)["weak_accuracy"] is None
    for split in ("meta", "validation", "test"):
        part = rows[rows["split"] == split]
        assert len(part) and (part["label"] >= 0).all()
    assert facts(out)["examples"]["meta"] == 18
    assert {f"test.jsonl/{number:05d}" for number in range(3)} <= ids(out, "uncovered")
    assert ids(out, "meta") < {name for name in rows["sample_id"] if name.startswith("train")}
    dataset = load(out / "texts.parquet", out / "seed0" / "manifest.parquet")
    assert not dataset.split("test").known


def test_held_out_comes_from_the_training_part_and_training_is_the_meta_set(tmp_path):
    written(tmp_path / "source")
    for name in ("validation", "test"):
        (tmp_path / "source" / f"{name}.jsonl").unlink()
    splits = {"meta": 0.2, "validation": 0.1, "test": 12}
    out = prepared_from(tmp_path, with_data(meta_set="held_out", splits=splits))
    rows = manifest(out)
    counts = facts(out)["examples"]
    assert (counts["meta"], counts["validation"], counts["test"]) == (12, 6, 12)
    assert counts["train"] + counts.get("uncovered", 0) == 30
    meta = rows[rows["split"] == "meta"]
    assert (meta["label"] == meta["clean_label"]).all()
    out = prepared_from(tmp_path, with_data(meta_set="training", splits=splits))
    assert "meta" not in facts(out)["examples"]
    dataset = load(out / "texts.parquet", out / "seed0" / "manifest.parquet")
    assert dataset.split("meta") is dataset.split("train")
    labels = Texts(dataset, config().model, out / "tokenizer").held_out("meta").labels
    np.testing.assert_array_equal(labels.argmax(dim=1), dataset.split("train").label)


DRAWN = {"meta": 0.2, "validation": 4, "test": 0.3}


def alone(folder: Path, edit: Any, seeds: tuple[int, ...] = (0, 1), **changes: Any) -> Path:
    """Prepared of the edited training part alone, everything else drawn from it."""
    edited(written(folder / "source") / "train.jsonl", edit)
    for name in ("validation", "test"):
        (folder / "source" / f"{name}.jsonl").unlink()
    return prepared_from(folder, with_data(**{"meta_set": "held_out", "splits": DRAWN, **changes}), seeds)


def test_held_out_texts_are_those_with_a_clean_label_where_some_have_one(tmp_path):
    def edit(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | ({"label": None} if number % 2 else {})

    out = alone(tmp_path, edit)
    rows, counts = manifest(out), facts(out)["examples"]
    assert (counts["meta"], counts["validation"], counts["test"]) == (6, 4, 9)
    held = rows[rows["split"].isin(["meta", "validation", "test"])]
    assert (held["clean_label"] != -1).all() and (held["label"] == held["clean_label"]).all()
    train = rows[rows["split"].isin(["train", "uncovered"])]
    assert (train["clean_label"] == -1).sum() == 30 and (train["clean_label"] != -1).sum() == 11
    assert (train["label"] != train["clean_label"]).any() and facts(out)["weak_accuracy"] < 1
    assert json.loads((out / "dataset.json").read_text())["clean_labels"] == {"train": 30}
    whole = prepared_from(tmp_path, with_data(meta_set="held_out", splits={"meta": 10, "validation": 8, "test": 12}))
    rows = manifest(whole)
    train = rows[rows["split"].isin(["train", "uncovered"])]
    assert len(train) == 30 and (train["clean_label"] == -1).all()
    said = (
        r"meta 10 \+ validation 9 = 31 texts are drawn from .* whose clean label is known, 30 of 60: expected 30 texts"
    )
    with pytest.raises(SamaError, match=said):
        prepared_from(tmp_path, with_data(meta_set="held_out", splits={"meta": 10, "validation": 9, "test": 12}))


def test_held_out_parts_are_measured_where_a_clean_label_is_known(tmp_path):
    written(tmp_path / "source")
    for name in ("validation", "test"):
        edited(tmp_path / f"source/{name}.jsonl", lambda n, row: row | ({"label": None} if n < 3 else {}))
    out = prepared_from(tmp_path, config())
    counts = facts(out)["examples"]
    assert (counts["meta"], counts["validation"], counts["test"]) == (9, 8, 13)
    assert {f"{name}.jsonl/0000{n}" for name in ("validation", "test") for n in range(3)} < ids(out, "uncovered")
    assert facts(out)["uncovered"] == {"train": counts["uncovered"] - 6, "validation": 3, "test": 3}
    assert json.loads((out / "dataset.json").read_text())["clean_labels"] == {"train": 60, "validation": 17, "test": 13}
    assert load(out / "texts.parquet", out / "seed0" / "manifest.parquet").split("test").known


@pytest.mark.parametrize("clean", [True, False])
def test_a_drawn_test_split_is_one_for_all_seeds(tmp_path, clean):
    seeds = (0, 1, 2, 100)
    out = alone(tmp_path, lambda n, row: row if clean else row | {"label": None}, seeds=seeds)
    assert len({tuple(sorted(ids(out, "test", seed))) for seed in seeds}) == 1
    assert len({tuple(rows["label"][rows["split"] == "test"]) for rows in (manifest(out, seed) for seed in seeds)}) == 1
    for split in ("meta", "validation", "train"):
        assert len({tuple(sorted(ids(out, split, seed))) for seed in seeds}) == 4
        assert all(ids(out, split, seed).isdisjoint(ids(out, "test", 0)) for seed in seeds)


def test_equal_texts_are_in_one_split_and_what_splits_share_is_said(tmp_path, data):
    def edit(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"text": f"{'One' if number % 2 else 'one'} text {number % 20}"}

    out = alone(tmp_path, edit, seeds=(0, 1, 2))
    texts = pd.read_parquet(out / "texts.parquet").set_index("sample_id")["text"].str.lower()
    pairs: dict[str, Any] = {}
    for seed in range(3):
        rows = manifest(out, seed)
        rows["split"] = rows["split"].replace("uncovered", "train")
        counts = rows["split"].value_counts().to_dict()
        assert counts == {"train": 18, "meta": 12, "validation": 12, "test": 18}  # thrice 6, 4, 4 and 6 distinct texts
        assert (rows["split"].groupby(texts[rows["sample_id"]].to_numpy()).nunique() == 1).all()
        pairs = facts(out, seed)["overlap"]
        assert len(pairs) == 6 and not any(pair["shared"] for pair in pairs.values())
    assert set(facts(data)["overlap"]) == set(pairs)
    written(tmp_path / "source")
    edited(tmp_path / "source/test.jsonl", edit)
    edited(tmp_path / "source/validation.jsonl", edit)
    shared = facts(prepared_from(tmp_path, config()))["overlap"]
    assert shared["meta/test"]["shared"] + shared["validation/test"]["shared"] == 16
    assert shared["meta/validation"]["shared"] == 0


def test_a_smaller_training_part_is_drawn_by_votes_and_no_hidden_label_decides(tmp_path):
    fewer = with_data(max_texts=30)
    written(tmp_path / "source")
    one = manifest(prepared_from(tmp_path, fewer))
    edited(tmp_path / "source" / "train.jsonl", lambda number, row: row | {"label": "travel"})
    other = manifest(prepared_from(tmp_path, fewer))
    assert (one["clean_label"] != other["clean_label"]).any()
    pd.testing.assert_frame_equal(one.drop(columns="clean_label"), other.drop(columns="clean_label"))
    assert one["sample_id"].str.startswith("train").sum() == 30


def test_a_smaller_training_part_keeps_the_clean_labels_that_splits_are_drawn_from(tmp_path):
    splits = {"meta": 4, "validation": 4, "test": 4}
    out = alone(tmp_path, lambda n, row: row | ({"label": None} if n % 5 else {}), max_texts=30, splits=splits)
    rows = manifest(out)
    assert len(rows) == 30 and rows["split"].isin(splits).sum() == 12
    assert ((rows["clean_label"] != -1) == rows["split"].isin(splits)).all()


def test_validation_can_be_both(tmp_path):
    out = prepared(tmp_path, with_data(meta_set="validation_as_both"))
    assert facts(out)["examples"]["validation"] == SIZES["validation"]
    dataset = load(out / "texts.parquet", out / "seed0" / "manifest.parquet")
    assert dataset.split("meta") is dataset.split("validation")


def test_cut_texts_are_counted_by_part(tmp_path):
    settings = config(model={**CONFIG["model"], "max_length": 48})
    written(tmp_path / "source")
    edited(tmp_path / "source/train.jsonl", lambda n, row: row | ({"text": row["text"] + " and" * 60} if n < 5 else {}))
    out = prepared_from(tmp_path, settings)
    assert json.loads((out / "dataset.json").read_text())["cut"] == {"train": 5, "validation": 0, "test": 0}
    dataset = load(out / "texts.parquet", out / "seed0" / "manifest.parquet")
    examples = Texts(dataset, settings.model, out / "tokenizer").training("weak", "majority_vote")
    assert int(examples.lengths.max()) == 48


def test_a_preparation_that_fails_leaves_the_former_one_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    written(tmp_path / "source")
    out = prepared_from(tmp_path, config())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    edited(tmp_path / "source/train.jsonl", lambda number, row: row | {"text": f"{row['text']} {number}"})
    with pytest.raises(SamaError, match="model 'no/such-model'"):
        prepared_from(tmp_path, config(model={"name": "no/such-model"}))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_texts_under_the_same_ids_are_refused(tmp_path, data):
    texts = pd.read_parquet(data / "texts.parquet")
    texts.assign(text=texts["text"].str.upper()).to_parquet(tmp_path / "texts.parquet")
    with pytest.raises(SamaError, match=r"not the texts that .* was made with"):
        load(tmp_path / "texts.parquet", data / "seed0" / "manifest.parquet")


def one(number: int, row: dict[str, Any]) -> dict[str, Any] | None:
    return row if number == 0 else None


@pytest.mark.parametrize(
    ("settings", "part", "edit", "message"),
    [
        (config(), "train", lambda n, row: row | SILENT, r"data: train: all 12 labelling functions abstain on all 60"),
        (WEAK, "test", lambda n, row: row | SILENT, r"data: test: all 12 labelling functions abstain on all 16 texts"),
        (config(), "train", lambda n, row: row | {"text": " "}, "line 1: expected a text, got an empty one"),
        (config(), "train", lambda n, row: row | {"text": "\u0007"}, r"train.jsonl/00000: expected at least one tok"),
        (config(), "test", lambda n, row: row | {"label": "x"}, "line 1: column 'label': label 'x' is outside"),
        (config(), "validation", one, r"data.splits.meta: 0.5 of the 1 validation texts is 1: expected at least one"),
        (config(), "validation", lambda n, row: None, "validation.jsonl: the file is empty: expected at least"),
        (with_data(measure="binary_f1"), "train", lambda n, row: row,
         "data.measure: binary_f1 is of the second of two classes, got 4: expected accuracy, macro_f1 or micro_f1"),
        (with_data(label_column=None), "train", lambda n, row: row, "validation: expected clean labels, got none"),
        (with_data(vote_columns=["rule"]), "train", lambda n, row: row, "expected a column 'rule', got text, label"),
        (with_data(id_column="id"), "train", lambda n, row: row | {"id": "a"}, "expected an id of its own, got 'a'"),
        (with_data(meta_set="held_out", splits={"meta": 0.001}), "train", lambda n, row: row,
         r"data.splits.meta: 0.001 of the 60 distinct labelled training texts is 0: expected at least one"),
        (with_data(meta_set="held_out", splits={"meta": 30}), "train",
         lambda n, row: row | {"text": f"{'a' if n < 30 else 'A'} {n % 30}", **({} if n < 30 else {"label": None})},
         "meta 30 = 30 texts leave none of the 30 distinct labelled training texts to learn from"),
        (config(), "train", lambda n, row: row | {k: v for k, v in SILENT.items() if row[k] == "travel"},
         "class 'travel': expected a vote on a training text, got none of 60: leave the class out, or take more texts"),
        (config(model={"name": "no/such-model"}), "train", lambda n, row: row, "set model.name to that folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_one_line(tmp_path, monkeypatch, settings, part, edit, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the variable is read at import
    edited(written(tmp_path / "source") / f"{part}.jsonl", edit)
    with pytest.raises(SamaError, match=message) as caught:
        prepared_from(tmp_path, settings)
    assert "\n" not in str(caught.value)


def test_a_validation_part_is_needed_to_divide_it(tmp_path):
    (written(tmp_path / "source") / "validation.jsonl").unlink()
    with pytest.raises(SamaError, match=r"data.meta_set divided: source json_lines has no validation part: use held_o"):
        prepared_from(tmp_path, config())


def test_an_id_of_two_parts_is_refused(tmp_path):
    written(tmp_path / "source")
    for part in SIZES:
        edited(tmp_path / "source" / f"{part}.jsonl", lambda number, row: row | {"id": str(number)})
    with pytest.raises(SamaError, match=r"the id '0' stands in two parts, expected it once"):
        prepared_from(tmp_path, with_data(id_column="id"))


def test_votes_that_are_not_there_and_heads_that_do_not_fit_are_one_line(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, PreTrainedTokenizerFast

    plain: TextsConfig = with_data(vote_columns=[])
    out = prepared(tmp_path, plain)
    dataset = load(out / "texts.parquet", out / "seed0" / "manifest.parquet")
    train = dataset.split("train")
    texts = Texts(dataset, plain.model, out / "tokenizer")
    np.testing.assert_array_equal(texts.training("weak", "majority_vote").labels.argmax(dim=1), train.clean_label)
    np.testing.assert_array_equal(train.label, train.clean_label)
    with pytest.raises(SamaError, match="method dawid_skene: the training texts have no votes of labelling functions"):
        texts.training("dawid_skene", "majority_vote")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "tokenizer")
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    for folder, model, masked, message in (
        ("other", BertForSequenceClassification(BertConfig(vocab_size=30, **sizes)), False, "they do not match"),
        ("gpt2", GPT2Config(n_embd=8, n_layer=1, n_head=1, pad_token_id=0), True, "a gpt2 has no head of masked"),
    ):
        model.save_pretrained(tmp_path / folder)
        tokenizer.save_pretrained(tmp_path / folder)
        named = plain.model.model_copy(update={"name": folder})
        with pytest.raises(SamaError, match=message) as caught:
            Texts(dataset, named, out / "tokenizer", tmp_path).classifier(0, masked_head=masked, attention="sdpa")
        assert "\n" not in str(caught.value)
