import numpy as np

from sama.data.overlap import EXAMPLES, fingerprint, overlap_report


def report(contents: str, splits: list[str], names=("train", "validation", "test")):
    sample_id = np.array([f"x/{i:03d}" for i in range(len(contents))])
    return overlap_report([fingerprint(c.encode()) for c in contents], sample_id, np.array(splits), names)


def test_planted_duplicates_are_counted_for_each_pair_and_named():
    #          a in train twice and test, b in all three, c twice in train alone, d alone
    found = report("aabbbccda", ["train", "train", "train", "validation", "test", "train", "train", "test", "test"])
    assert found == {
        "train/validation": {"shared": 1, "train": 1, "validation": 1, "examples": [["x/002", "x/003"]]},
        "train/test": {"shared": 2, "train": 3, "test": 2, "examples": [["x/000", "x/008"], ["x/002", "x/004"]]},
        "validation/test": {"shared": 1, "validation": 1, "test": 1, "examples": [["x/003", "x/004"]]},
    }


def test_nothing_shared_gives_zero_for_each_pair():
    found = report("abc", ["train", "validation", "test"])
    assert {pair: entry["shared"] for pair, entry in found.items()} == dict.fromkeys(found, 0)
    assert len(found) == 3


def test_examples_stop_at_the_limit_and_the_count_does_not():
    contents = [fingerprint(bytes([i])) for i in range(30)] * 2
    sample_id = np.array([f"x/{i:03d}" for i in range(60)])
    split = np.array(["train"] * 30 + ["test"] * 30)
    entry = overlap_report(contents, sample_id, split, ["train", "test"])["train/test"]
    assert entry["shared"] == 30
    assert len(entry["examples"]) == EXAMPLES == 20


def test_the_order_of_examples_does_not_matter():
    contents = [fingerprint(bytes([i % 7])) for i in range(40)]
    sample_id = np.array([f"x/{i:03d}" for i in range(40)])
    split = np.array(["train", "meta", "validation", "test"] * 10)
    names = ["train", "meta", "validation", "test"]
    order = np.random.default_rng(0).permutation(40)
    assert overlap_report(contents, sample_id, split, names) == overlap_report(
        [contents[i] for i in order], sample_id[order], split[order], names
    )
