"""The page of an experiment on texts: what it shows of a results folder, and what it refuses."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sama.config import TextsConfig, load_any
from sama.errors import SamaError
from sama.files import read_json, write_json, write_parquet
from sama.report import texts_page, texts_tables
from sama.report.compare import paired, spread
from sama.report.page import Drawing
from sama.report.tables import Table
from sama.report.texts_findings import findings, supervision
from sama.report.texts_loading import TextResults, load
from sama.report.words import accuracy_text, percent
from sama.stages import report_texts
from tests import planted_texts
from tests.pages import Page

FIGURES = {"measures", "validation_curves", "weights_meta_r", "weights_meta_rc"}


def config_of(results: Path) -> TextsConfig:
    config = load_any([results / "config.yaml"])
    assert isinstance(config, TextsConfig)
    return config


def undrawn(results: Path) -> tuple[TextResults, Page]:
    """The page without figures, which take longest."""
    config = config_of(results)
    loaded = load(results, config)
    names = ["measures", "validation_curves", *(f"weights_{method}" for method in loaded.weights)]
    blank = {name: Drawing('<svg width="9pt"/>', name, name) for name in names}
    return loaded, Page(texts_page.render(loaded, config, blank))


def cells(table: Table | None) -> dict[str, list[str]]:
    """First cell of a row -> the others."""
    assert table is not None
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TextResults, str]:
    results = planted_texts.build(tmp_path_factory.mktemp("made"))
    report_texts.run(results=results, out=results / "report", config=config_of(results))
    html = (results / "report/index.html").read_text(encoding="utf-8")
    return results, load(results, config_of(results)), html


@pytest.fixture
def copy(made: tuple[Path, TextResults, str], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "planted_texts")
    return tmp_path / "planted_texts"


def changed(copy: Path, path: str, change: Any) -> None:
    content = read_json(copy / path)
    change(content)
    write_json(copy / path, content)


def test_the_page_needs_nothing_else(made):
    results, _, html = made
    assert {path.stem for path in (results / "report/figures").iterdir()} == FIGURES
    page = Page(html)
    assert sum(tag == "img" for tag, _ in page.tags) == len(FIGURES)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object")
        if tag == "img":
            assert attributes["src"].startswith("data:")
        if tag == "a" and not attributes["href"].startswith(("#", "https://arxiv.org/")):
            assert (results / "report" / attributes["href"]).is_file()


def test_texts_are_escaped_and_cut(made):
    _, _, html = made
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; a subject of cash" in html
    assert planted_texts.LONG not in html
    shown = texts_tables.cut(planted_texts.LONG)
    assert shown in html
    assert len(shown) <= 160
    assert texts_tables.cut("two\n lines") == "two lines"


def test_no_place_of_this_machine_is_shown(made):
    results, _, html = made
    assert str(results.parent.parent) not in html
    assert "mails.jsonl" in html


def test_methods_stand_with_their_numbers(made):
    results, loaded, _ = made
    summary = read_json(results / "summary.json")
    shown = cells(texts_tables.measure_table(loaded))
    assert next(iter(shown)) == "Majority vote"
    own, start = (summary["test"][method]["accuracy"] for method in ("meta_r", "majority_vote"))
    gap = paired(own, start)
    assert shown["SAMA R"] == [
        accuracy_text(spread(own)),
        f"+{100 * gap.difference.mean:.1f} ± {100 * (gap.difference.sd or 0):.1f}",
        "3 of 3",
        accuracy_text(spread(summary["validation"]["meta_r"])),
        "3.5",
    ]
    assert shown["Majority vote"][1:3] == ["–", "–"]


def test_another_measure_stands_beside_accuracy(made):
    _, loaded, _ = made
    test = {method: {"macro_f1": [0.5] * 3, "accuracy": [0.9] * 3} for method in loaded.test}
    table = texts_tables.measure_table(replace(loaded, measure="macro_f1", test=test))
    assert table.header[1:3] == ["Macro F1", "Accuracy"]
    assert cells(table)["SAMA R"][:2] == ["50.0 ± 0.0 %", "90.0 ± 0.0 %"]


def test_weak_test_labels_are_said(made):
    _, loaded, _ = made
    assert texts_tables.WEAK_TEST not in texts_tables.measure_table(loaded).notes
    weak = replace(loaded, measured_against={"validation": "clean", "test": "weak"})
    assert texts_tables.measure_table(weak).notes[0] == texts_tables.WEAK_TEST


def test_it_is_said_what_is_chosen_on_validation(made):
    results, loaded, _ = made
    config = config_of(results)
    for keep, grids, chosen in (
        ("best", config.tuning.grids, "texts hyperparameters and the weights to keep are chosen, "),
        ("best", None, "texts the weights to keep are chosen, "),
        ("last", config.tuning.grids, "texts hyperparameters are chosen, "),
        ("last", None, ". Nothing is chosen on the "),
    ):
        parts = {
            "training": config.training.model_copy(update={"keep": keep}),
            "tuning": config.tuning.model_copy(update={"grids": grids}),
        }
        assert chosen in supervision(loaded, config.model_copy(update=parts))


def test_displacement_is_said_where_a_meta_method_is_displaced(made):
    results, loaded, _ = made
    config = config_of(results)
    assert "displacement" not in supervision(loaded, config)
    options = config.meta.options.model_copy(update={"displace": True})
    displaced = config.model_copy(update={"meta": config.meta.model_copy(update={"options": options, "alpha": 3.0})})
    assert "by a length of α = 3 (displacement)" in supervision(loaded, displaced)
    plain = replace(loaded, test={"majority_vote": loaded.test["majority_vote"]})
    assert "displacement" not in supervision(plain, displaced)


def test_labels_functions_and_splits(made):
    results, loaded, _ = made
    votes = read_json(results / "data/dataset.json")["votes"]
    subject = cells(texts_tables.function_table(votes))["subject"]
    row = votes["functions"][1]
    assert subject == ["ham, spam", *(percent(row[key]) for key in ("coverage", "overlap", "conflict", "accuracy"))]
    right = [read_json(results / f"data/seed{seed}/manifest.json")["weak_accuracy"] for seed in loaded.seeds]
    assert cells(texts_tables.label_table(loaded))["Majority vote"] == [accuracy_text(spread(right))]
    splits = cells(texts_tables.splits_table(loaded))
    assert splits["train"][1] == accuracy_text(spread([1 - value for value in right]))
    assert splits["meta"] == ["16", "none"]
    assert splits["uncovered"][1] == "–"


def test_the_chosen_candidate_is_bold(made):
    _, loaded, _ = made
    table = texts_tables.tuning_table(loaded)
    assert table is not None
    bold = [[cell.text for cell in row] for row in table.rows if row[1].best]
    assert len(table.rows) == 2 * len(loaded.test)
    assert {row[1] for row in bold} == {"training.optimizer.learning_rate 0.002"}
    assert len(bold) == len(loaded.test)


def test_corrections_are_those_of_the_weights_the_surest_first(made):
    results, loaded, _ = made
    rows = loaded.corrected
    assert rows is not None
    assert (rows["label"] != rows["corrected"]).all()
    assert rows["gain"].is_monotonic_decreasing
    assert (rows["corrected"] == rows["sample_id"].map(loaded.clean)).mean() > 0.9
    after = read_json(results / "summary.json")["correction"]["meta_rc"]["corrected_accuracy"]
    assert cells(texts_tables.correction_table(loaded))["SAMA R&C"][1] == accuracy_text(spread(after))


def test_what_stands_in_two_splits_is_told(copy):
    changed(copy, "data/dataset.json", lambda d: d.update(overlap={"train/test": {"shared": 3}}))
    loaded, page = undrawn(copy)
    assert "Overlap of the parts of the source" in page.text and "train and test 3" in page.text
    assert "No two parts" not in page.text and "No two splits share a text." in page.text
    assert "clean label is known, which" not in page.text
    path = f"data/seed{loaded.seeds[0]}/manifest.json"
    changed(copy, path, lambda d: d["overlap"].update({"meta/test": {"shared": 2}}))
    changed(
        copy, "data/dataset.json", lambda d: d.update(overlap={"train/test": {"shared": 0}}, clean_labels={"train": 90})
    )
    _, page = undrawn(copy)
    assert "Overlap of the splits" in page.text and "meta and test 0–2" in page.text
    assert "No two parts of the source share a text." in page.text and "No two splits" not in page.text
    assert "Texts whose clean label is known, which alone are measured on: 90 of 120 (train)." in page.text
    facts = {
        "texts": {"train": 120, "validation": 9, "test": 9},
        "clean_labels": {"train": 90, "validation": 9, "test": 8},
    }
    config = config_of(copy)
    whole = config.model_copy(update={"data": config.data.model_copy(update={"meta_set": "divided"})})
    told = texts_page.data_section(replace(loaded, dataset=loaded.dataset | facts), whole).texts
    assert "Texts whose clean label is known, which alone are measured on: 8 of 9 (test)." in told


def test_the_findings_name_the_best_only_where_the_seeds_allow(made):
    results, loaded, _ = made
    config = config_of(results)
    values = {"majority_vote": 0.7, "clean_only": 0.8, "meta_r": 0.9}

    def told(meta: list[float]) -> str:
        test = {m: {"accuracy": [v, v + 0.01, v - 0.01]} for m, v in values.items()} | {"meta_r": {"accuracy": meta}}
        few = {method: {"accuracy": row["accuracy"][: len(meta)]} for method, row in test.items()}
        return " ".join(findings(replace(loaded, test=few, seeds=loaded.seeds[: len(meta)]), config))

    text = told([0.9, 0.92, 0.89])
    assert "that of SAMA R" in text
    assert "leads every other method clearly" in text
    text = told([0.6, 0.61, 0.59])
    assert "that of clean set only" in text
    assert "Compared with majority vote (70.0 ± 1.0 %) it is 10.0 ± 0.0 points lower, and lower on 3 of 3 seeds" in text
    text = told([0.7, 0.95, 0.81])
    assert "leads" not in text
    assert "within what the spread over seeds allows by chance" in text
    text = told([0.9, 0.92])
    assert "leads" not in text
    assert "2 seeds: too few to tell from chance" in text


def test_supervision_is_told(made):
    results, loaded, _ = made
    config = config_of(results)
    told = findings(loaded, config)[-1]
    assert told.startswith("The meta set has 16 held-out texts with clean labels")
    assert "“clean set only” and “weak, then clean” learn from it as well" in told
    assert "16 validation texts" in told
    both = config.data.model_copy(update={"meta_set": "validation_as_both"})
    assert "chosen on what they have seen" in findings(loaded, config.model_copy(update={"data": both}))[-1]


def test_synthetic_texts_are_called_so(made):
    results, loaded, html = made
    config = config_of(results)
    assert "synthetic" not in html
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": "synthetic_texts"})})
    assert findings(loaded, config)[0].startswith("The texts are synthetic")
    assert texts_page.subtitle(loaded, config).startswith("synthetic texts")


def test_without_clean_labels_nothing_is_judged(tmp_path):
    results = planted_texts.build(tmp_path, methods=("majority_vote", "meta_r"), clean_known=False, tuned=False)
    loaded, page = undrawn(results)
    assert "Nothing was tuned" in page.text
    assert "held-out texts with weak labels" in page.text
    assert "Texts of lowest weight" in page.text
    for absent in ("Clean label", "AUC", "Weak labels that are right", "Suspects that are wrong", "Corrected labels"):
        assert absent not in page.text
    assert all(weights.wrong is None for weights in loaded.weights["meta_r"])


def test_without_a_meta_method_there_are_no_weights(tmp_path):
    results = planted_texts.build(tmp_path, methods=("majority_vote", "clean_only"), seeds=(0,))
    _, page = undrawn(results)
    assert {"measures", "labels", "tuning"} <= page.ids
    assert not {"weights", "corrections", "suspects"} & page.ids


def test_meta_methods_bear_the_name_of_the_hypergradient(tmp_path):
    results = planted_texts.build(
        tmp_path, methods=("majority_vote", "meta_r", "meta_r_na"), seeds=(0,), overrides={"meta": {"method": "darts"}}
    )
    loaded, _ = undrawn(results)
    assert [look.label for look in loaded.looks.values()] == ["majority vote", "DARTS R", "SAMA-NA R"]


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("summary.json", lambda s: s["test"].pop("meta_r"), "test: expected the method 'meta_r', got"),
        ("summary.json", lambda s: s["validation"].update(meta_r=[0.5]), "validation.meta_r: expected 3 numbers"),
        ("summary.json", lambda s: s.pop("correction"), "expected a key 'correction'"),
        ("data/dataset.json", lambda d: d.pop("overlap"), "dataset.json: expected a key 'overlap'"),
        ("tuning/meta_r.json", lambda t: t.pop("chosen"), "meta_r.json: expected a key 'chosen'"),
    ],
)
def test_a_file_that_says_something_else_is_named(copy, path, change, message):
    changed(copy, path, change)
    before = (copy / "report/index.html").read_bytes()
    with pytest.raises(SamaError, match=message):
        report_texts.run(results=copy, out=copy / "report", config=config_of(copy))
    assert (copy / "report/index.html").read_bytes() == before


@pytest.mark.parametrize("path", ["models/seed1/meta_r/weights.parquet", "suspects/weights.csv", "tuning/meta_rc.json"])
def test_a_missing_file_is_named(copy, path):
    (copy / path).unlink()
    with pytest.raises(SamaError, match=f"{path}: missing"):
        load(copy, config_of(copy))


def test_texts_that_training_did_not_visit_are_left_out(copy, made):
    for method in ("meta_r", "meta_rc"):
        path = copy / f"models/seed0/{method}/weights.parquet"
        table = pd.read_parquet(path)
        table.loc[table.index[:20], table.columns[1:]] = np.nan
        write_parquet(path, table)
    loaded, before = load(copy, config_of(copy)), made[1]
    first, second = loaded.weights["meta_r"][:2]
    assert len(first.weight) == len(before.weights["meta_r"][0].weight) - 20
    assert np.isfinite(first.relative).all()
    assert len(second.weight) == len(before.weights["meta_r"][1].weight)
    assert loaded.corrected is not None
    assert np.isfinite(loaded.corrected["gain"]).all()
    assert np.isfinite(loaded.corrected["weight"]).all()


def test_a_uniform_label_is_neither_right_nor_wrong(tmp_path, made):
    uniform = planted_texts.build(tmp_path, overrides={"data": planted_texts.data(tmp_path, uncovered="uniform")})
    assert load(uniform, config_of(uniform)).label_accuracy == made[1].label_accuracy


def test_weights_of_other_texts_are_refused(copy):
    shutil.copy(copy / "models/seed0/meta_r/weights.parquet", copy / "models/seed1/meta_r/weights.parquet")
    with pytest.raises(SamaError, match="expected the training examples of"):
        load(copy, config_of(copy))
