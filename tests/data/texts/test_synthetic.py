"""The frozen corpus: if its hash changes, results that stand on it do too."""

import hashlib
import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from sama.data.texts import TextOptions, open_texts
from sama.data.texts.splits import text_overlap
from sama.data.texts.synthetic import FUNCTIONS, generate
from sama.data.texts.votes import vote_report

HASH = "33c32d4642bfc0ee821ce4b8c59128446939b51d7d20f988b6fa9adecf3b8d63"
COVERAGE_AND_ACCURACY = {  # percent, of the training texts, as the module's docstring says
    "travel": [(14.4, 83.3), (23.8, 37.3), (19.6, 40.3)],
    "cooking": [(17.3, 85.0), (21.2, 35.9), (13.8, 43.8)],
    "health": [(18.2, 80.5), (16.6, 48.5), (14.5, 40.0)],
    "finance": [(16.4, 78.4), (14.2, 58.3), (14.2, 39.2)],
}


@pytest.fixture(scope="module")
def corpus():
    return open_texts(TextOptions("synthetic_texts"))


def test_the_bytes_are_frozen(corpus):
    lines = [
        json.dumps([name, text, label, votes])
        for part in corpus.parts.values()
        for name, text, label, votes in zip(
            part.sample_id.tolist(), part.text, part.label.tolist(), part.votes.tolist(), strict=True
        )
    ]
    assert [len(part) for part in corpus.parts.values()] == [2000, 200, 500] and len(lines) == 2700
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == HASH


def test_functions_have_the_coverage_and_the_accuracy_that_are_documented(corpus):
    report = vote_report(corpus.train.votes, corpus.train.label, corpus.class_names, corpus.functions)
    found = {name: [] for name in corpus.class_names}
    for function in report["functions"]:
        assert function["classes"] == [FUNCTIONS[function["name"]][1]]
        found[function["classes"][0]].append((100 * function["coverage"], 100 * function["accuracy"]))
    for name, expected in COVERAGE_AND_ACCURACY.items():
        assert np.abs(np.array(found[name]) - expected).max() < 0.051
    whole = [round(100 * report[key], 1) for key in ("coverage", "conflict", "majority_accuracy")]
    assert whole == [93.3, 52.3, 62.8]


def test_a_word_counting_model_on_clean_labels_reaches_what_is_documented(corpus):
    words = CountVectorizer().fit(corpus.train.text)
    model = LogisticRegression(max_iter=500).fit(words.transform(corpus.train.text), corpus.train.label)
    assert model.score(words.transform(corpus.test.text), corpus.test.label) == pytest.approx(0.89, abs=0.01)


def test_no_text_stands_twice_and_classes_are_of_like_size(corpus):
    texts = [text for part in corpus.parts.values() for text in part.text]
    assert len(set(texts)) == len(texts)
    assert all(entry["shared"] == 0 for entry in text_overlap(corpus.parts).values())
    assert np.bincount(corpus.train.label).min() > 450


def test_another_seed_is_another_corpus():
    sizes = {"train": 20}
    assert generate(1, sizes).train.text == generate(1, sizes).train.text != generate(2, sizes).train.text
