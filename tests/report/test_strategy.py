"""The page says how the kept examples were chosen, and what that took beyond the scores."""

import pytest

from sama.report import page
from sama.report.loading import load
from tests.planted_results import build


@pytest.mark.parametrize(
    ("selection", "chosen", "uncounted"),
    [
        ({}, "Kept are those of highest score.", ""),
        ({"strategy": "class_balanced"}, "as large a part of every class.", ""),
        ({"strategy": "stratified"}, "(stratified, CCS). The hardest 10 % go first where", ""),
        ({"strategy": "stratified", "stratified": {"hard_cutoff": 0.0}}, "(stratified, CCS).", ""),
        ({"strategy": "d2"}, "lowers the scores of its neighbours (D2).", "The features that the strategy d2 reads"),
        ({"strategy": "beta"}, "a Beta density of the difficulty (beta).", "The probabilities that the strategy beta"),
    ],
)
def test_the_strategy_and_what_it_reads_are_told(tmp_path, selection, chosen, uncounted):
    overrides = {"selection": {"pruning_ratios": [0.3], **selection}}
    config = build(tmp_path, train=60, seeds=(0, 1), methods=("random", "margin"), ratios=(0.3,), overrides=overrides)
    parts = {part.key: part for part in page.sections(load(tmp_path / config.experiment), config, {})}
    (text,) = parts["accuracy"].texts
    assert chosen in text
    assert ("hardest" in text) == ("hardest" in chosen)
    assert [said.startswith(uncounted) for said in parts["cost"].texts] == [True] * bool(uncounted)
