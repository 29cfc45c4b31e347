"""Scores as detectors of planted wrong labels, on digits; `-s` shows the table. The whole one: benchmarks/scores.py."""

from pathlib import Path

import pytest

from benchmarks import scores as benchmark
from sama.config import validate
from sama.scores import SCORES

STEPS = 60
SMALL = {
    "seeds": [0],
    "data": {
        "source": "digits",
        "max_images": 700,
        "splits": {"meta": 60, "validation": 40, "test": 100},
        "noise": {"kind": "symmetric", "rate": 0.3},
    },
    "model": {"name": "test_resnet", "small_stem": True},
    "training": {"steps": STEPS, "batch_size": 64},
    "meta": {"batch_size": 60, "training": {"steps": 120, "batch_size": 64}},
    "scores": {
        **{method: {"models": 1, "steps": 30} for method in ("el2n", "el2n_reversed", "grand")},
        **{method: {"models": 1, "steps": STEPS} for method in ("margin", "entropy")},
        **{method: {"window": 3, "epochs": None} for method in ("dyn_unc", "tdds", "dual")},
    },
    "runtime": {"device": "cpu"},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    measured = benchmark.detection(validate(SMALL), 0, list(SCORES), Path(tmp_path_factory.mktemp("noise")))
    print("\n" + benchmark.table([measured]))
    return measured


@pytest.mark.parametrize("method", [name for name, score in SCORES.items() if score.noise_aware])
def test_noise_aware_scores_find_wrong_labels(found, method):
    assert found[method]["auc"] > 0.85


def test_scores_that_keep_hard_examples_keep_wrong_labels(found):
    assert found["el2n"]["auc"] == pytest.approx(0.0, abs=0.15)
    assert found["grand"]["auc"] < 0.3
    assert found["random"]["auc"] == pytest.approx(0.5, abs=0.1)
    assert found["random"]["cost"] == 0
    # the observed training is charged to each of its readers
    assert found["forgetting"]["cost"] == found["aum"]["cost"] == 1.0
