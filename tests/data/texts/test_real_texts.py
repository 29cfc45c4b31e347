"""The text sources on real files of a data root: SAMA_DATA_DIR, or these tests skip."""

import numpy as np

from sama.data.texts import TextOptions, TextSource, open_texts
from sama.data.texts.splits import text_overlap
from sama.data.texts.votes import aggregate, vote_report
from tests.data.test_real_data import root


def opened(name: str, path: str) -> TextSource:
    return open_texts(TextOptions(name, root(path), path))


def sizes(source: TextSource) -> dict[str, int]:
    return {name: len(part) for name, part in source.parts.items()}


def right(source: TextSource, method: str) -> float:
    assert source.train.votes is not None
    found = aggregate(source.train.votes, source.train.sample_id, len(source.class_names), method=method)
    return float(np.mean(found.hard == source.train.label[found.rows]))


def test_wrench_trec_without_its_leak():
    source = opened("wrench", "wrench/trec")
    assert sizes(source) == {"train": 4965, "validation": 500, "test": 500, "labeled": 68}
    assert source.class_names == ("DESC", "ENTY", "HUM", "ABBR", "LOC", "NUM")
    assert source.facts == {"test_prefixes_stripped": 500, "labeled_rows_left_out": 68}
    assert source.test is not None and source.test.text[0] == "How far is it from Denver to Aspen ?"
    first = {text.split()[0].lower() for text in source.test.text}
    assert {"what", "how", "who"} <= first and not first & {"dist", "def", "ind", "city", "other", "animal"}
    assert source.train.votes is not None and source.train.votes.shape == (4965, 68)
    shared = text_overlap(source.parts)
    assert shared["train/labeled"]["labeled"] == 68 and shared["train/test"]["shared"] == 9
    report = vote_report(source.train.votes, source.train.label, source.class_names)
    assert round(report["majority_accuracy"], 3) == 0.534 and round(report["coverage"], 3) == 0.951
    assert all(len(function["classes"]) <= 1 for function in report["functions"])
    assert abs(right(source, "majority_vote") - 0.534) < 0.02 and abs(right(source, "dawid_skene") - 0.471) < 0.005


def test_wrench_youtube():
    source = opened("wrench", "wrench/youtube")
    assert sizes(source) == {"train": 1586, "validation": 120, "test": 250, "labeled": 100}
    assert source.class_names == ("HAM", "SPAM") and source.facts == {"labeled_rows_left_out": 100}
    shared = text_overlap(source.parts)
    assert [shared[pair]["shared"] >= least for pair, least in (
        ("train/validation", 6), ("train/test", 6), ("validation/test", 14),
    )] == [True] * 3  # fmt: skip
    assert abs(right(source, "majority_vote") - 0.851) < 0.02 and abs(right(source, "dawid_skene") - 0.822) < 0.005


def test_citation_intent():
    source = opened("json_lines", "jsonl/citation_intent")
    assert sizes(source) == {"train": 1688, "validation": 114, "test": 139}
    assert source.class_names == ("Background", "CompareOrContrast", "Extends", "Future", "Motivation", "Uses")
    assert np.bincount(source.train.label).tolist() == [867, 305, 63, 60, 76, 317]
    shared = text_overlap(source.parts)
    assert shared["train/validation"]["shared"] == 43 and shared["train/test"]["shared"] == 48


def test_chemprot():
    source = opened("json_lines", "jsonl/chemprot")
    assert sizes(source) == {"train": 4169, "validation": 2427, "test": 3469}
    assert len(source.class_names) == 13 and source.train.votes is None
    assert int(np.sum(source.train.label == source.class_names.index("INHIBITOR"))) == 1642
