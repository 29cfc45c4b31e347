"""`sama init --texts`: what it writes for a table, that the pipeline takes it, and what it says of others."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sama.config import TextsConfig, over_default, read, validate_any
from sama.errors import SamaError
from sama.own_columns import Columns
from sama.own_texts import look_at, write_config
from sama.own_texts_config import methods_of
from sama.stages import prepare_texts

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"cat": "purr whiskers", "dog": "bark leash", "eel": "river slime"}


def rows(count: int, first: int = 0, wrong: int = 7) -> list[dict[str, Any]]:
    """Texts of three classes; every `wrong`-th `label` is one."""
    names = list(WORDS)
    found = []
    for number in range(first, first + count):
        clean = names[number % 3]
        label = names[(number + 1) % 3] if number % wrong == 0 else clean
        found.append({"label": label, "text": f"number {number} has {WORDS[clean]}", "gold": clean})
    return found


def without(column: str, table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != column} for row in table]


def voted(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Four columns of labels, of which two are of one class and mostly silent."""
    table = without("label", without("gold", rows(count, first)))
    for number, row in enumerate(rows(count, first)):
        clean = row["gold"]
        row = table[number]
        row |= {"rule": clean if number % 5 else None, "crowd": list(WORDS)[number % 4 % 3]}
        row |= {"purr": "cat" if clean == "cat" else "", "silent": None if number % 9 else clean}
    return table


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(table)
    return path


def written(texts: Path, **asked: Any) -> TextsConfig:
    """What `sama init` writes, laid over the default configuration."""
    path = texts.parent / "my.yaml"
    write_config(path, texts, True, Columns(**asked))
    found = validate_any(over_default(read([path])))
    assert isinstance(found, TextsConfig)
    return found


def prepared(config: TextsConfig, out: Path) -> Any:
    """The manifest that the pipeline makes of it."""
    root = Path(config.data_root or "")
    prepare_texts.run(out=out, seeds=(0,), data_root=root, data=config.data, model=config.model)
    return pd.read_parquet(out / "seed0" / "manifest.parquet")


def refusal(texts: Path, **asked: Any) -> str:
    path = texts.parent / "my.yaml"
    with pytest.raises(SamaError) as raised:
        write_config(path, texts, False, Columns(**asked))
    assert not path.exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv"])
def test_a_single_column_of_labels_is_a_vote_and_nothing_is_clean(tmp_path, suffix):
    texts = write(tmp_path / "mine: # 1" / f"mine '#.{suffix}", without("gold", rows(60)))
    config = written(texts)
    data = config.data
    assert (data.source, data.path) == ("json_lines" if suffix == "jsonl" else "csv", texts.name)
    assert (data.text_column, data.label_column, data.vote_columns) == ("text", None, ("label",))
    assert (data.meta_set, data.splits.test, data.id_column) == ("held_out", 0.2, None)
    assert config.finetuning.methods == ("majority_vote", "meta_r", "meta_rc", "self_training")
    text = (texts.parent / "my.yaml").read_text()
    assert text.startswith("# 60 texts of 3 classes. 36 to train on")
    assert '"label" 100%' in text and "no error that all share" in text and "bert-base-uncased" in text
    manifest = prepared(config, tmp_path / "data")
    assert (manifest["clean_label"] == -1).all()
    assert manifest["split"].value_counts().to_dict() == {"train": 36, "test": 12, "meta": 6, "validation": 6}
    counts = manifest["label"][manifest["split"] == "train"].value_counts()
    assert ", ".join(f'"{name}" {counts[k]}' for k, name in enumerate(WORDS)) in text


def test_steps_and_batches_are_of_the_number_of_texts(tmp_path):
    few, many = (written(write(tmp_path / f"{n}.csv", without("gold", rows(n)))) for n in (40, 2000))
    assert (few.training.steps, few.training.batch_size, few.meta.batch_size) == (200, 8, 4)
    assert (many.training.steps, many.training.batch_size, many.meta.batch_size) == (375, 32, 32)


def test_several_columns_of_labels_are_labelling_functions(tmp_path):
    config = written(write(tmp_path / "mine.jsonl", voted(60)))
    assert config.data.vote_columns == ("rule", "crowd", "purr", "silent")
    assert "dawid_skene" in config.finetuning.methods
    assert not {"clean_only", "weak_then_clean"} & {*config.finetuning.methods}
    found = look_at(tmp_path / "mine.jsonl", Columns())
    text = (tmp_path / "my.yaml").read_text()
    assert '"rule" 80%; "crowd" 100%; "purr" 33.3%; "silent" 11.7%' in text
    assert f"conflict {100 * found.votes['conflict']:.3g}%" in text and found.votes["conflict"] > 0
    prepared(config, tmp_path / "data")
    fewer = written(tmp_path / "mine.jsonl", votes=("rule", "purr"))
    assert fewer.data.vote_columns == ("rule", "purr") and "dawid_skene" not in fewer.finetuning.methods
    manifest = prepared(fewer, tmp_path / "fewer")
    uncovered = (manifest["split"] == "uncovered").sum()
    assert uncovered > 0 and f"{uncovered} texts have no label" in (tmp_path / "my.yaml").read_text()


def test_a_clean_column_is_the_meta_sets_and_never_learned_from(tmp_path):
    config = written(write(tmp_path / "mine.csv", rows(60)), label="gold")
    assert (config.data.label_column, config.data.vote_columns) == ("gold", ("label",))
    assert config.data.meta_set == "held_out" and {"clean_only", "weak_then_clean"} <= {*config.finetuning.methods}
    assert ", 85% of it right" in (tmp_path / "my.yaml").read_text()
    manifest = prepared(config, tmp_path / "data").set_index("split")
    assert (manifest.loc["meta", "label"] == manifest.loc["meta", "clean_label"]).all()
    assert (manifest.loc["train", "label"] != manifest.loc["train", "clean_label"]).any()
    assert (tmp_path / "my.yaml").read_text().count("weak ones") == 0


def test_a_few_clean_labels_are_for_the_held_out_texts(tmp_path):
    table = [row | ({"gold": ""} if i % 4 == 1 or i > 90 else {}) for i, row in enumerate(rows(180, wrong=11))]
    known = sum(row["gold"] != "" for row in table)
    config = written(write(tmp_path / "mine.csv", table), label="gold")
    text = (tmp_path / "my.yaml").read_text()
    assert f"known for {known} of 180 texts: held-out texts are of these" in text and "weak ones" not in text
    assert "by clean labels (splits.meta\n  # of those that have one)" in text
    assert "each divides the texts anew, but for the test texts" in text
    assert "clean_only" in config.finetuning.methods
    manifest = prepared(config, tmp_path / "data")
    held = manifest[manifest["split"].isin(["meta", "validation", "test"])]
    assert len(held) >= 0.85 * known and (held["label"] == held["clean_label"]).all()
    assert (manifest["split"] == "train").sum() == 180 - len(held)
    for row in table:  # a class has no clean label, and one of the columns of votes has it
        row |= {"gold": row["gold"].replace("dog", ""), "rule": row["label"].replace("dog", ""), "day": row["text"][7]}
    found = look_at(write(tmp_path / "mine.csv", table), Columns(label="gold"))
    assert (found.data.vote_columns, found.passed) == (("label", "rule"), ("day",))
    assert found.class_names == ("cat", "dog", "eel")
    for i, row in enumerate(table):  # with a clean label for each text, a column of more values holds something else
        row |= {"gold": ["cat", "eel"][i % 2]}
    found = look_at(write(tmp_path / "mine.csv", table), Columns(label="gold"))
    assert (found.data.vote_columns, found.passed) == (("rule",), ("label", "day"))


def test_a_clean_validation_part_is_divided(tmp_path):
    write(tmp_path / "own" / "train.jsonl", without("gold", rows(40)))
    write(tmp_path / "own" / "valid.jsonl", without("label", rows(12, 40)))
    write(tmp_path / "own" / "test.jsonl", without("label", rows(12, 60)))
    config = written(tmp_path / "own")
    assert (config.data.label_column, config.data.vote_columns) == ("gold", ("label",))
    assert (config.data.meta_set, config.data.splits.meta, config.data.splits.test) == ("divided", 0.5, None)
    manifest = prepared(config, tmp_path / "data")
    assert manifest["split"].value_counts().to_dict() == {"train": 40, "test": 12, "meta": 6, "validation": 6}
    write(tmp_path / "own" / "valid.jsonl", [*without("label", rows(12, 40)), {"text": "one more", "gold": None}])
    assert written(tmp_path / "own").data.meta_set == "divided"
    text = (tmp_path / "my.yaml").read_text()
    assert "known for 12 of 13 texts (validation): held-out" in text and "1 held-out texts are left out too" in text


def test_one_column_can_be_weak_in_training_and_clean_in_the_held_out_parts(tmp_path):
    for name, first in (("train", 0), ("validation", 40), ("test", 60)):
        write(tmp_path / "own" / f"{name}.csv", without("gold", rows(40 if name == "train" else 12, first)))
    weak = written(tmp_path / "own")
    assert (weak.data.meta_set, weak.data.label_column) == ("held_out", None)
    assert (prepared(weak, tmp_path / "weak")["clean_label"] == -1).all()
    assert "null is your test part; its labels are weak ones" in (tmp_path / "my.yaml").read_text()
    clean = written(tmp_path / "own", label="label")
    assert (clean.data.label_column, clean.data.vote_columns) == ("label", ("label",))
    assert clean.data.meta_set == "divided"
    manifest = prepared(clean, tmp_path / "clean")
    assert ((manifest["clean_label"] == -1) == (manifest["split"] == "train")).all()


def test_columns_are_found_whatever_they_are_called(tmp_path):
    table = [
        {"id": f"q{i}", "who": f"x{i}", "body": row["text"], "sentiment": row["label"], "score": i / 7}
        for i, row in enumerate(rows(30))
    ]
    config = written(write(tmp_path / "mine.csv", table))
    assert (config.data.text_column, config.data.vote_columns) == ("body", ("sentiment",))
    assert config.data.id_column == "id"
    assert set(prepared(config, tmp_path / "data")["sample_id"]) == {f"q{i}" for i in range(30)}
    assert written(write(tmp_path / "mine.csv", table), text="who").data.text_column == "who"
    table[1]["id"] = "q0"
    assert written(write(tmp_path / "mine.csv", table)).data.id_column is None


def test_numbers_are_labels_and_a_column_of_other_classes_is_named_or_asked_for(tmp_path):
    table = [
        {"text": row["text"], "label": i % 3, "second": float(i % 2), "source": "web" if i % 2 else "mail"}
        for i, row in enumerate(rows(40))
    ]
    config = written(write(tmp_path / "mine.jsonl", table))
    assert config.data.vote_columns == ("label", "second")
    assert 'Not taken, though they may be labels too: "source"' in (tmp_path / "my.yaml").read_text()
    (tmp_path / "my.yaml").unlink()
    message = refusal(write(tmp_path / "mine.jsonl", [{"topic": row.pop("label"), **row} for row in table]))
    assert message.endswith(
        "columns topic, second, source may hold labels, of other classes each: name those that do by --vote-columns"
    )
    (tmp_path / "class_names.txt").write_text("mail\nweb\nfax\n")
    assert "class 'fax': expected a vote on a training text, got none" in refusal(tmp_path / "mine.jsonl")
    (tmp_path / "class_names.txt").write_text("mail\nweb\n")
    assert written(tmp_path / "mine.jsonl").data.vote_columns == ("source",)


def test_lengths_are_of_nearly_all_texts(tmp_path):
    table = without("gold", rows(100))
    assert written(write(tmp_path / "mine.jsonl", table)).model.max_length == 16
    table[0]["text"] = "word " * 300
    longer = [row | {"text": table[0]["text"] + row["text"]} for row in table]
    assert written(write(tmp_path / "mine.jsonl", table)).model.max_length == 16
    assert "about 1 of 100 texts are longer" in (tmp_path / "my.yaml").read_text()
    assert written(write(tmp_path / "mine.jsonl", longer)).model.max_length == 128


@pytest.mark.parametrize(
    ("table", "asked", "expected"),
    [
        (rows(40), {"label": "truth"}, "expected a column 'truth', got label, text, gold"),
        (rows(40), {"votes": ("label", "rule")}, "expected a column 'rule', got label, text, gold"),
        (without("gold", without("label", rows(40))), {}, "expected a column of labels beside 'text', of few values"),
        (without("gold", without("text", rows(40))), {}, "expected a column of texts, got label: name it by"),
        (without("gold", rows(40)), {"label": "label"}, "'label' is said to be clean and no other column holds labels"),
        (rows(40), {"label": "label", "votes": ("label",)}, "'label' cannot be clean and a vote"),
        ([row | {"label": "cat"} for row in without("gold", rows(40))], {}, "two classes or more, got cat"),
        (without("gold", rows(4)), {"votes": ("label",)}, "is 0: expected at least one"),
        (without("gold", rows(12)), {"votes": ("label",)}, "the split meta has 1 distinct texts, fewer than the 3"),
        ([row | {"text": f"text {i % 20}"} for i, row in enumerate(without("gold", rows(200)))], {},
         "the split meta has 2 distinct texts, fewer than the 3 classes"),
        ([row | {"gold": "cat" if i < 40 else ""} for i, row in enumerate(rows(200))], {"label": "gold"},
         "all 9 texts of the split meta have the label 'cat': expected texts of other classes too"),
        ([row | {"label": 1 - 2 * (i % 2)} for i, row in enumerate(without("gold", rows(40)))], {}, "labels 1 and -1"),
        ([row | {"x": 9**500} for row in rows(40)], {"votes": ("x",)}, "is outside 0..99999"),
        ([*without("gold", rows(40)), {"text": "", "label": "cat"}], {}, "line 41: expected a text, got an empty one"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_refused_in_one_line(tmp_path, table, asked, expected):
    message = refusal(write(tmp_path / "mine.jsonl", table), **asked)
    assert message.startswith(str(tmp_path)) and expected in message


def test_what_is_no_table_is_refused_in_one_line(tmp_path):
    assert "no such file, expected a file .jsonl, .csv or .tsv" in refusal(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_text("text,label\n")
    assert refusal(tmp_path / "mine.csv").endswith("mine.csv: expected at least one text below the header, got none")
    (tmp_path / "own").mkdir()
    assert "a folder without it, expected a file .jsonl, .csv or .tsv, or a folder with" in refusal(tmp_path / "own")
    (tmp_path / "mine.txt").write_text("a\n")
    assert "'.txt', expected a file .jsonl" in refusal(tmp_path / "mine.txt")


def test_the_command_takes_images_or_texts_and_says_what_comes_next(tmp_path):
    texts, path = write(tmp_path / "mine.csv", rows(40)), tmp_path / "my.yaml"

    def sama(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "sama.cli", *words], cwd=ROOT, capture_output=True, text=True)

    made = sama("init", str(path), "--texts", str(texts), "--label-column", "gold", "--vote-columns", "label, gold")
    assert made.returncode == 1 and "'gold' cannot be clean and a vote" in made.stderr
    made = sama("init", str(path), "--texts", str(texts), "--label-column", "gold")
    assert made.stdout == f"{path}: 40 texts of 3 classes; next: make reproduce CONFIG={path}\n", made.stderr
    for words, got in (((), "neither"), (("--images", "a", "--texts", "b"), "both")):
        wrong = sama("init", str(path), *words)
        assert wrong.returncode == 2
        assert wrong.stderr == f"sama init: expected one of --images and --texts, got {got} (see sama init --help)\n"
    assert "are for --texts" in sama("init", str(path), "--images", "a", "--text-column", "b").stderr


@pytest.mark.parametrize("name", ["2024", "no", "null", "1_000"])
def test_an_experiment_may_be_called_like_a_number_or_a_truth_value(tmp_path, name):
    path = tmp_path / f"{name}.yaml"
    write_config(path, write(tmp_path / "mine.csv", rows(40)), False, Columns())
    assert validate_any(over_default(read([path]))).experiment == name


def test_dawid_skene_needs_three_columns_and_clean_only_clean_texts(tmp_path):
    table = voted(60)
    for columns in (("rule",), ("rule", "crowd"), ("rule", "crowd", "silent")):
        found = look_at(write(tmp_path / "mine.jsonl", table), Columns(votes=columns))
        assert ("dawid_skene" in methods_of(found)) == (len(columns) == 3)
