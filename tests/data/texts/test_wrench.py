import json
from pathlib import Path
from typing import Any

import pytest

from sama.data.texts import TextOptions, TextSource, open_texts
from sama.errors import SamaError

TREC = {"0": "DESC", "1": "ENTY", "2": "HUM", "3": "ABBR", "4": "LOC", "5": "NUM"}


def row(text: Any, label: Any, *votes: Any) -> dict[str, Any]:
    return {"label": label, "data": {"text": text}, "weak_labels": list(votes)}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def opened(folder: Path, **options: Any) -> TextSource:
    return open_texts(TextOptions("wrench", None, str(folder), **options))


def error(folder: Path, **options: Any) -> str:
    with pytest.raises(SamaError) as raised:
        opened(folder, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def spam(tmp_path) -> Path:
    train = {"0": row("call me", 0, -1, 0), "1": row("win now", 1, 1, -1), "12": row("win now", 1, 1, 0)}
    return write(
        tmp_path,
        train=train,
        valid={"0": row("hello", 0, -1, -1)},
        test={"0": row("prize", 1, 1, 1), "1": row("lunch?", 0, 0, -1)},
        label={"1": "SPAM", "0": "HAM"},
    )


def test_texts_gold_labels_and_votes_of_the_three_files(spam):
    source = opened(spam)
    assert source.class_names == ("HAM", "SPAM") and source.facts == {} and list(source.parts) == [
        "train", "validation", "test",
    ]  # fmt: skip
    assert source.train.sample_id.tolist() == ["train/00000", "train/00001", "train/00012"]
    assert source.train.text == ("call me", "win now", "win now") and source.train.label.tolist() == [0, 1, 1]
    assert source.train.votes is not None and source.train.votes.tolist() == [[-1, 0], [1, -1], [1, 0]]
    assert source.test is not None and source.test.label.tolist() == [1, 0]


def test_labelled_rows_leave_the_pool_and_are_a_part(spam):
    write(spam, labeled_ids={"labeled_ids": ["12"], "lf_exemplar_ids": ["0"]})
    source = opened(spam)
    assert source.train.sample_id.tolist() == ["train/00000", "train/00001"]
    assert source.labeled is not None and source.labeled.sample_id.tolist() == ["train/00012"]
    assert source.facts == {"labeled_rows_left_out": 1}
    write(spam, labeled_ids={"labeled_ids": ["7"]})
    assert error(spam) == f"{spam / 'labeled_ids.json'}: id '7' is not in {spam / 'train.json'}"
    write(spam, labeled_ids={"labeled_ids": ["0", "1", "12"]})
    assert "lists every row" in error(spam)
    write(spam, labeled_ids=["12"])
    assert "expected a list under the key 'labeled_ids'" in error(spam)


def test_class_names_without_a_list_are_the_numbers(spam):
    (spam / "label.json").unlink()
    assert opened(spam).class_names == ("0", "1")


def test_a_class_name_that_stands_twice_is_refused(spam):
    write(spam, label={"0": "same", "1": "same"})
    assert "label.json: expected a name for each class, got one twice" in error(spam)


def test_numbers_are_indices_even_where_classes_are_named_by_numbers(spam):
    write(spam, label={"0": "1", "1": "2"})
    assert opened(spam).train.label.tolist() == [0, 1, 1]


def trec(folder: Path, *test: tuple[str, int]) -> Path:
    return write(
        folder,
        train={"0": row("who is it ?", 2, 2)},
        test={str(i): row(text, label, -1) for i, (text, label) in enumerate(test)},
        label=TREC,
    )


def test_the_trec_leak_is_stripped_where_every_text_begins_with_a_fine_label_of_its_class(tmp_path):
    source = opened(trec(tmp_path, ("dist How far ?", 5), ("desc Who was Galileo ?", 2), ("exp What is WHO ?", 3)))
    assert source.test is not None and source.test.text == ("How far ?", "Who was Galileo ?", "What is WHO ?")
    assert source.facts == {"test_prefixes_stripped": 3} and source.train.text == ("who is it ?",)


def test_honest_texts_keep_their_first_word(tmp_path):
    for last in (("How far ?", 5), ("dist How far ?", 4), ("dist", 5)):  # none, of another class, nothing behind it
        source = opened(trec(tmp_path, ("desc Who was Galileo ?", 2), last, last))
        assert source.test is not None and source.test.text == ("desc Who was Galileo ?", last[0], last[0])
        assert source.facts == {}
    trec(tmp_path, ("How far ?", 5), ("dist How far ?", 4))
    expected = f"{tmp_path / 'test.json'}: strip_prefix true: expected fine labels of TREC before texts, got none in 2"
    assert error(tmp_path, strip_prefix=True).startswith(expected)


def test_a_leak_in_most_texts_is_stripped_where_it_stands_or_left_but_not_overlooked(tmp_path):
    trec(tmp_path, ("dist How far ?", 5), ("How long is it ?", 5), ("desc Who was Galileo ?", 2))
    assert error(tmp_path) == (
        f"{tmp_path / 'test.json'}: 2 of 3 texts begin with a fine label of TREC, test/00001 does not: set "
        "data.strip_prefix to true (drop it where it stands) or to false (leave all as they are)"
    )
    source = opened(tmp_path, strip_prefix=True)
    assert source.test is not None and source.test.text == ("How far ?", "How long is it ?", "Who was Galileo ?")
    assert source.facts == {"test_prefixes_stripped": 2}
    assert opened(tmp_path, strip_prefix=False).facts == {}


def test_the_leak_stays_where_that_is_asked_for(tmp_path):
    source = opened(trec(tmp_path, ("dist How far ?", 5)), strip_prefix=False)
    assert source.test is not None and source.test.text == ("dist How far ?",) and source.facts == {}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"a": row("x", 0, 0, 1), "b": row("y", 0, 0)}, "text 'b': expected 2 votes, as text 'a' has, got 1"),
        ({"a": row("x", 2, 0, 1)}, "text 'a': label: label 2 is outside the 2 classes HAM, SPAM"),
        ({"a": row("x", 0, 0, -2)}, "text 'a': weak_labels: label -2 is outside the 2 classes HAM, SPAM"),
        ({"a": row("x", True, 0, 1)}, "text 'a': label: label True is outside"),
        ({"a": row(" \n", 0, 0, 1)}, "text 'a': expected a text, got an empty one"),
        ({"a": row(7, 0, 0, 1)}, "text 'a': expected a text, got 7"),
        ({"a": {"text": "x", "label": 0}}, """text 'a': expected {"data": {"text": …}, …}, got {'text'"""),
        ({"a": {"data": {"text": "x"}}}, "text 'a': expected a key 'label' or 'weak_labels', got neither"),
        ({"a": row("x", 0) | {"weak_labels": 3}}, "text 'a': expected a list of weak_labels, got 3"),
        (["x"], "expected an object of texts by id, got list"),
        ({}, "expected at least one text, got none"),
    ],
)
def test_a_wrong_file_is_named_with_text_and_expectation(spam, train, expected):
    write(spam, train=train)
    assert error(spam).startswith(f"{spam / 'train.json'}: {expected}")


def test_parts_have_as_many_votes_and_held_out_ones_their_labels(spam):
    write(spam, test={"0": row("x", 0, 1)})
    assert error(spam).endswith("expected as many votes for each text in every part, got train 2, validation 2, test 1")
    write(spam, test={"0": row("x", 0, 1, 1), "3": row("x", None, 1, 1)})
    assert error(spam) == f"{spam / 'test.json'}: text '3': expected its gold label, got none"


def test_files_that_cannot_be_read_are_named_with_the_line(spam):
    path = spam / "train.json"
    path.write_text('{"a": {"data": {"text": "x"}, "label": 0},\n"b": }')
    assert error(spam) == f"{path}: line 2: not valid JSON (Expecting value, column 6)"
    path.write_text('{"a": {"label": 0}, "a": {"label": 1}}')
    assert error(spam) == f"{path}: expected ids and keys of their own, got 'a' twice"
    path.write_bytes(b'{"a":\n "caf\xe9"}')
    assert error(spam) == f"{path}: line 2: expected UTF-8, got the byte 0xe9"
    path.unlink()
    assert error(spam) == f"{path}: missing"
    write(spam, label={"0": "HAM", "2": "SPAM"})
    assert "expected class names by index" in error(write(spam, train={"a": row("x", 0)}))


def test_ids_that_differ_only_in_leading_zeros_are_one_id(spam):
    write(spam, train={"1": row("x", 0, 0, 0), "01": row("y", 0, 0, 0)})
    assert "text '01': expected an id of its own, got 'train/00001', which text '1' has" in error(spam)


def test_where_to_look_is_said(tmp_path):
    with pytest.raises(SamaError, match=r"^data_root: source 'wrench' needs the folder that 'wrench/trec' stands in"):
        open_texts(TextOptions("wrench", None, "wrench/trec"))
    with pytest.raises(SamaError, match=r"trec: no such file or folder, looked in for source 'wrench'"):
        open_texts(TextOptions("wrench", tmp_path, "wrench/trec"))
    with pytest.raises(SamaError, match=r"^data.path: source 'wrench' needs"):
        open_texts(TextOptions("wrench", tmp_path))
    with pytest.raises(SamaError, match=r"unknown text source 'wrensh' \(did you mean wrench\?\)"):
        open_texts(TextOptions("wrensh"))
