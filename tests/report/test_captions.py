"""The report's sentences must stay true whatever the numbers are."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sama.report import captions, findings, tables, words
from sama.report.compare import paired, spread
from sama.report.loading import load
from tests.planted_results import build

LOSING = {"meta_weight": 0.6, "random": 0.8, "margin": 0.93, "full": 0.82}


def made(tmp_path, **options):
    config = build(tmp_path, **{"train": 90, **options})
    return load(tmp_path / config.experiment, config.scores.methods), config


def bold(table):
    return [(row[0].text, cell.text) for row in table.rows for cell in row if cell.best]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_difference_text_says_the_sign_and_no_more(pairs):
    own, other = (list(part) for part in zip(*pairs, strict=True))
    comparison = paired(own, other)
    text = words.difference_text(comparison)
    gap = float(np.mean(own) - np.mean(other))
    assert ("points higher" in text) == (gap > 0 and round(100 * gap, 1) != 0)
    assert ("points lower" in text) == (gap < 0 and round(100 * gap, 1) != 0)
    assert ("too few" in text or "by chance" in text) == (not comparison.clear)
    counted = re.search(r"on (\d) of (\d) seeds", text)
    if counted:
        wins = sum(a > b if gap > 0 else a < b for a, b in pairs)
        assert (int(counted[1]), int(counted[2])) == (wins, len(pairs))


def test_a_win_is_told_with_its_size(tmp_path):
    results, config = made(tmp_path, spread=0.001)
    text = " ".join(findings.findings(results, config))
    assert "Compared with random pruning (78.0 ± 0.1 %) it is 19.0 ± 0.1 points higher" in text
    assert "lower" not in findings.accuracy_findings(results)[1]


def test_a_loss_is_told_as_a_loss(tmp_path):
    results, _ = made(tmp_path, spread=0.001, accuracy=LOSING, detection={"meta_weight": -2.0, "el2n": 3.0})
    against_random, against_best, against_full = findings.accuracy_findings(results)[1:4]
    for text in (against_random, against_best, against_full):
        assert "points lower, and lower on 3 of 3 seeds" in text
        assert "higher" not in text
    assert "margin, the best of the other scores" in against_best
    detected = " ".join(findings.detection_findings(results))
    assert "Under 0.5 it ranks wrong labels above right ones" in detected
    assert re.search(r"(EL2N|Margin) detects with [\d.]+ ± \S+, which is (clearly higher|higher, though)", detected)


def test_the_losing_method_is_not_bold(tmp_path):
    results, _ = made(tmp_path, spread=0.001, accuracy=LOSING)
    found = bold(tables.accuracy_table(results))
    assert [name for name, _ in found] == ["Margin"] * 3
    gaps = next(row for row in tables.accuracy_table(results).rows if "− random" in row[0].text)
    assert all(cell.text.startswith(("−20.", "−19.")) for cell in gaps[1:])


def test_no_bold_within_the_spread(tmp_path):
    level = dict.fromkeys(("meta_weight", "random", "el2n", "margin"), 0.9)
    results, _ = made(tmp_path, spread=0.02, accuracy=level, ratios=(0.3,))
    table = tables.accuracy_table(results)
    assert not bold(table)
    assert any("At 30 % nothing is set in bold" in note for note in table.notes)


@pytest.mark.parametrize("seeds", [(4,), (0, 1)])
def test_few_seeds_claim_nothing(tmp_path, seeds):
    results, config = made(tmp_path, seeds=seeds)
    table = tables.accuracy_table(results)
    assert not bold(table)
    assert not bold(tables.detection_table(results))
    assert any("cannot tell a lead from chance" in note for note in table.notes)
    text = " ".join(findings.findings(results, config))
    assert "clearly lower" not in text
    assert "clearly higher" not in text
    assert "too few to tell from chance" in text


def test_one_seed_has_no_plus_minus(tmp_path):
    results, config = made(tmp_path, seeds=(4,))
    assert "±" not in " ".join(findings.findings(results, config))
    assert "no spread is known" in captions.accuracy_caption(results)


def test_chance_is_called_chance(tmp_path):
    results, _ = made(tmp_path, train=400, detection={"meta_weight": 0.0})
    assert "not clearly different from chance" in " ".join(findings.detection_findings(results))


def test_an_auc_under_a_half_is_explained_and_read_in_reverse(tmp_path):
    results, _ = made(tmp_path)
    text = captions.detection_caption(results)
    reverse = 1 - np.mean(results.detection["el2n"]["auc"])
    assert "An AUC under 0.5 means" in text
    assert "EL2N does so by design" in text
    assert f"EL2N {reverse:.3f}" in text
    assert "meta weight" not in text


def test_a_rival_is_read_the_way_it_detects(tmp_path):
    results, _ = made(tmp_path, methods=("meta_weight", "random", "el2n"), detection={"meta_weight": 1.0, "el2n": -5.0})
    text = " ".join(findings.detection_findings(results))
    reverse = words.auc_text(spread([1 - value for value in results.detection["el2n"]["auc"]]))
    assert f"EL2N, read in reverse, detects with {reverse}, which is clearly higher" in text


def test_chance_is_no_rival_in_detection(tmp_path):
    results, _ = made(tmp_path, methods=("meta_weight", "random"))
    assert "random" not in " ".join(findings.detection_findings(results))


def test_what_is_kept_wrong_is_told(tmp_path):
    results, _ = made(tmp_path)
    kept = 100 * np.mean(results.kept_noise["el2n"][0.3])
    assert f"EL2N {kept:.1f} %" in findings.accuracy_findings(results)[-1]


def test_the_cost_is_told(tmp_path):
    results, config = made(tmp_path)
    assert (
        "in full trainings: meta weight 2.7, random 0.0, EL2N 0.8 and margin 1.0."
        in findings.findings(results, config)[-1]
    )


def test_a_meta_weight_under_a_half_is_not_excused_by_design(tmp_path):
    results, _ = made(tmp_path, methods=("meta_weight", "random"), detection={"meta_weight": -3.0})
    text = captions.detection_caption(results)
    assert "by design" not in text
    assert "meta weight 0.9" in text


@pytest.mark.parametrize(
    ("meta_set", "expected"),
    [
        ("clean_held_out", "30 held-out examples with clean labels were used as meta set. The other scores do not"),
        ("noisy_held_out", "30 held-out examples with labels as noisy as those of the training set"),
        ("training", "with the training set itself as meta set"),
    ],
)
def test_what_the_meta_weight_saw_is_told(tmp_path, meta_set, expected):
    noise = {"kind": "symmetric", "rate": 0.3}
    results, config = made(tmp_path, overrides={"data": {"meta_set": meta_set, "noise": noise}})
    assert expected in findings.supervision_note(results, config)


def test_without_the_meta_weight_the_first_method_stands_in_front(tmp_path):
    results, config = made(tmp_path, methods=("margin", "random"))
    assert words.focus_of(made(tmp_path / "turned", methods=("random", "margin"))[0]) == "margin"
    text = " ".join(findings.findings(results, config))
    assert "the margin score reaches an AUC" in text
    assert "pruned by margin" in text
    assert "meta" not in text


def test_random_alone_is_not_compared_with_itself(tmp_path):
    results, _ = made(tmp_path, methods=("random",))
    assert "pruned at random" in findings.accuracy_findings(results)[0]
    assert "random pruning" not in " ".join(findings.accuracy_findings(results))
    assert not any("− random" in row[0].text for row in tables.accuracy_table(results).rows)


def test_noisy_validation_labels_are_told(tmp_path):
    results, _ = made(tmp_path)
    assert "would score 70 % here" in captions.curves_caption(results, 0.7)
    assert "noisy" not in captions.curves_caption(results, None)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5, 0.5], "0.500 ± <0.001"),
        ([0.5], "0.500"),
        ([0.4, 0.6], "0.500 ± 0.141"),
        ([0.9996, 0.9998], "0.9997 ± 0.0001"),
        ([1.0, 1.0], "1.000 ± <0.001"),
    ],
)
def test_auc_text(values, text):
    assert words.auc_text(spread(values)) == text


@pytest.mark.parametrize(("value", "text"), [(0.3, "30 %"), (0.975, "97.5 %"), (1.0, "100 %"), (0.07, "7 %")])
def test_percent(value, text):
    assert words.percent(value) == text
