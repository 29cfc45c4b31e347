"""JSON lines and CSV: the same rows in both, and what each has of its own."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sama.data.texts import TextOptions, TextSource, open_texts
from sama.errors import SamaError


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def opened(path: Path, **options: Any) -> TextSource:
    suffix = path.suffix or next(iter(sorted(path.glob("train.*")))).suffix
    return open_texts(TextOptions("json_lines" if suffix == ".jsonl" else "csv", None, str(path), **options))


def error(path: Path, **options: Any) -> str:
    with pytest.raises(SamaError) as raised:
        opened(path, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture(params=["jsonl", "csv", "tsv"])
def file(request, tmp_path) -> Path:
    return tmp_path / f"train.{request.param}"


def test_names_are_sorted_classes_and_one_file_is_the_training_part(file):
    rows = [{"text": 'a "quoted", text', "label": "pos "}, {"text": "zwei\nZeilen\u2028 ü", "label": "neg"}]
    source = opened(write(file, rows))
    assert source.class_names == ("neg", "pos") and list(source.parts) == ["train"]
    assert source.train.text == ('a "quoted", text', "zwei\nZeilen\u2028 ü")
    assert source.train.label.tolist() == [1, 0] and source.train.votes is None
    assert source.train.sample_id.tolist() == [f"{file.name}/00000", f"{file.name}/00001"]


def test_several_label_columns_are_votes_and_nothing_is_an_abstention(file):
    rows = [
        {"comment": "a", "rule": 2, "crowd": None, "gold": 1},
        {"comment": "b", "rule": -1, "crowd": 0.0, "gold": None},
    ]
    source = opened(write(file, rows), text_column="comment", label_column="gold", vote_columns=("rule", "crowd"))
    assert source.class_names == ("0", "1", "2") and source.functions == ("rule", "crowd")
    assert source.train.votes is not None and source.train.votes.tolist() == [[2, -1], [-1, 0]]
    assert source.train.label.tolist() == [1, -1]


def test_one_weak_label_column_is_one_vote_a_text(file):
    source = opened(write(file, [{"text": "a", "weak": "no"}, {"text": "b", "weak": "yes"}]),
                    label_column=None, vote_columns=("weak",))  # fmt: skip
    assert source.train.votes is not None and source.train.votes.tolist() == [[0], [1]]
    assert source.train.label.tolist() == [-1, -1]


def test_ids_of_a_column(file):
    rows = [{"id": "b7", "text": "a", "label": 0}, {"id": "a1", "text": "b", "label": 1}]
    assert opened(write(file, rows), id_column="id").train.sample_id.tolist() == ["b7", "a1"]
    rows[1]["id"] = "b7"
    assert error(write(file, rows), id_column="id").endswith(
        "line 2: expected an id of its own, got 'b7', which line 1 has"
        if file.suffix == ".jsonl"
        else "line 3: expected an id of its own, got 'b7', which line 2 has"
    )
    rows[1]["id"] = ""
    assert error(write(file, rows), id_column="id").endswith("column 'id': expected an id, got none")


def test_a_folder_has_held_out_parts_whose_clean_labels_suffice(file):
    write(file, [{"text": "a", "r": 0, "s": 1}, {"text": "b", "r": 1, "s": None}])
    write(file.with_stem("dev"), [{"text": "c", "label": 1}])
    write(file.with_stem("test"), [{"text": "d", "label": 0, "r": 1, "s": None}])
    source = opened(file.parent, vote_columns=("r", "s"))
    assert list(source.parts) == ["train", "validation", "test"]
    assert source.validation is not None and source.validation.votes is None
    assert source.test is not None and source.test.votes is not None and source.test.votes.tolist() == [[1, -1]]
    assert [part.label.tolist() for part in source.parts.values()] == [[-1, -1], [1], [0]]
    write(file.with_stem("valid"), [{"text": "c", "label": 1}])
    assert error(file.parent, vote_columns=("r", "s")).endswith(
        f"expected one file for validation, got valid{file.suffix}, dev{file.suffix}"
    )


def test_a_list_of_class_names_gives_their_order(file):
    (file.parent / "class_names.txt").write_text("yes\nno\n")
    source = opened(write(file, [{"text": "a", "label": "no"}, {"text": "b", "label": "0"}]))
    assert source.class_names == ("yes", "no") and source.train.label.tolist() == [1, 0]
    assert "column 'label': label 'maybe' is outside the 2 classes yes, no" in error(
        write(file, [{"text": "a", "label": "maybe"}])
    )


def test_digits_are_names_where_the_classes_are_named_by_other_digits(file):
    (file.parent / "class_names.txt").write_text("1\n2\n3\n")
    assert opened(write(file, [{"text": "a", "label": "1"}, {"text": "b", "label": "3"}])).train.label.tolist() == [
        0,
        2,
    ]
    assert "label '0' is outside the 3 classes 1, 2, 3" in error(write(file, [{"text": "a", "label": "0"}]))


def test_numbers_are_names_where_the_classes_are_named_by_other_numbers(file):
    (file.parent / "class_names.txt").write_text("1\n2\n3\n4\n")
    labels = [1, 2.0, 3, None, "4", -1]
    source = opened(write(file, [{"text": "a", "label": 1, "vote": label} for label in labels]), vote_columns=("vote",))
    assert source.train.votes is not None and source.train.votes[:, 0].tolist() == [0, 1, 2, -1, 3, -1]
    assert "label 5 is" in error(write(file, [{"text": "a", "label": 5}])).replace("'", "")
    (file.parent / "class_names.txt").write_text("-1\n1\n")
    found = opened(write(file, [{"text": "a", "label": 1}, {"text": "b", "label": -1}]))
    assert found.train.label.tolist() == [1, 0]


def test_true_and_false_are_names_in_any_case(file):
    (file.parent / "class_names.txt").write_text("True\nFalse\n")
    rows = [{"text": "a", "label": False}, {"text": "b", "label": True}]
    assert opened(write(file, rows)).train.label.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([3, 1, 5, 2, 4], ("1", "2", "3", "4", "5")),
        ([4, 0, 4.0], ("0", "4")),
        ([11, 9, -1, 10], ("9", "10", "11")),
        ([1, 0, -1], ("0", "1")),
        ([True, False], ("false", "true")),
        (["+2", 0, "2"], ("0", "2")),
    ],
)
def test_numbers_with_gaps_are_class_names(file, labels, names):
    rows = [{"text": "a", "label": 0, "vote": label} for label in labels]
    if True in labels and file.suffix != ".jsonl":
        rows = [row | {"vote": str(row["vote"]).lower()} for row in rows]
    source = opened(write(file, rows), label_column=None, vote_columns=("vote",))
    assert source.class_names == names and source.train.votes is not None
    found = [names[vote] if vote >= 0 else "-1" for vote in source.train.votes[:, 0]]
    assert found == [str(label).lower().removeprefix("+").removesuffix(".0") for label in labels]


def test_one_and_minus_one_alone_are_not_guessed(file):
    write(file, [{"text": "a", "label": 1}, {"text": "b", "label": -1}])
    assert error(file).startswith(f"{file}: labels 1 and -1 alone: -1 is an abstention, and may be meant for a class")


ROWS = [{"text": "a", "label": 0, "vote": 1}, {"text": "b", "label": 1, "vote": None}]


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        ({}, {"label_column": "gold"}, "expected a column 'gold', got text, label, vote"),
        ({}, {"text_column": "body"}, "expected a column 'body', got text, label, vote"),
        ({}, {"vote_columns": ("vote", "rule")}, "expected a column 'rule', got text, label, vote"),
        ({}, {"label_column": None}, "expected the name of a label column or of vote columns, got neither"),
        ({"label": None}, {}, "expected a label, got none"),
        ({"label": "x"}, {}, "expected class names or numbers as labels, got both: 'x' and 0"),
        ({"label": "9" * 400}, {}, f"label {'9' * 57}... is outside 0..99999"),
        ({"label": -3}, {}, "label -3 is outside 0..99999"),
        ({"label": 10**7}, {}, "label 10000000 is outside 0..99999"),
        ({"text": " "}, {}, "expected a text, got an empty one"),
    ],
)
def test_wrong_rows_and_options_are_said_with_the_place(file, change, options, expected):
    message = error(write(file, [ROWS[0], ROWS[1] | change]), **options)
    assert message.startswith(str(file)) and message.endswith(expected)


def test_labels_of_held_out_parts_must_be_among_those_of_training(file):
    write(file, ROWS)
    held_out = write(file.with_stem("test"), [{"text": "c", "label": 2}])
    message = error(file.parent)
    assert message.startswith(str(held_out)) and "column 'label': label " in message
    assert message.endswith("is outside the 2 classes 0, 1")
    write(held_out, [{"text": "c", "label": 1}, {"text": "d", "label": None}])
    assert (part := opened(file.parent).test) is not None and part.label.tolist() == [1, -1]
    write(held_out, [{"text": "d", "label": None}])
    assert error(file.parent).endswith("column 'label': expected a label, got none")
    write(held_out, [{"text": "c", "vote": 1}])
    assert error(file.parent) == f"{held_out}: expected a column 'label', got text, vote"


def test_no_label_at_all_and_no_training_file(file):
    assert error(write(file, [ROWS[1]]), label_column=None, vote_columns=("vote",)).endswith(
        "expected a label or a vote for at least one text, got none"
    )
    file.unlink()
    with pytest.raises(SamaError, match=r"expected a file train.jsonl, found none"):
        open_texts(TextOptions("json_lines", file.parent, ""))


def test_broken_json_lines_are_named_by_line(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "label": 0}\n\n{"text": "b", "label": }\n')
    assert error(path) == f"{path}: line 3: not valid JSON (Expecting value, column 24)"
    path.write_text('{"text": "a", "label": 0}\n["b", 1]\n')
    assert error(path) == f"{path}: line 2: expected an object, got ['b', 1]"
    path.write_text('{"text": "a", "label": 0}\n{"text": null, "label": 0}\n')
    assert error(path) == f"{path}: line 2: expected a text, got None"
    path.write_text('{"text": "a", "label": [0]}\n')
    assert error(path) == f"{path}: line 1: expected a class name or a whole number as label, got [0]"
    path.write_text('{"text": "a", "label": 0.5}\n')
    assert error(path) == f"{path}: line 1: expected a class name or a whole number as label, got 0.5"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", "label": 1, "label": 0}\n')
    assert error(path) == f"{path}: line 2: expected ids and keys of their own, got 'label' twice"
    path.write_text('{"text": "a", "label": ' + "9" * 5000 + "}\n")
    assert error(path) == f"{path}: line 1: expected numbers of at most some thousand digits, got a longer one"
    path.write_text('{"text": ' + "[" * 100_000 + "\n")
    assert error(path) == f"{path}: line 1: expected a plain object, got lists or objects nested too deep to read"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a", "label": 0}\n{"text": "\xff", "label": 0}\n')
    assert error(path) == f"{path}: line 2: expected UTF-8, got the byte 0xff"
    path.write_text('{"text": "\\ud83d\\ude00", "label": 0}\n{"text": "\\ud83d", "label": 0}\n')
    assert error(path) == f"{path}: line 2: expected Unicode, got half of a surrogate pair in '\\ud83d'"
    path.write_text("")
    assert error(path) == f"{path}: the file is empty: expected at least one text"
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": 0}\n')
    path.write_text('{"text": "a"}\n')
    assert error(tmp_path) == f"{path}: expected a column 'label', got text"


def test_broken_csv_is_named_by_line(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('text,label\n"two\nlines",0\nb\n')
    assert error(path) == f"{path}: line 4: expected 2 cells, got 1"
    path.write_text("text,label,text\na,0,b\n")
    assert error(path) == f"{path}: line 1: expected column names of their own, got 'text' twice"
    path.write_text('text,label\n"a,0\n')
    assert error(path) == f"{path}: line 2: not valid CSV (unexpected end of data)"
    path.write_text("text;label\na;0\n")
    assert error(path) == f"{path}: line 1: expected ',' between the columns, there seem to be ';'"
    path.write_text('"text,label"\n"a,0"\n')
    assert error(path) == f"{path}: line 1: expected quotes around single names, got them around 'text,label'"
    path.write_text("text,label\n")
    assert error(path) == f"{path}: expected at least one text below the header, got none"
    path.write_text("\n")
    assert error(path) == f"{path}: the file is empty: expected a header and at least one text"
    limit = csv.field_size_limit()
    path.write_text(f"text,label\n{'word ' * 50_000},0\nb,1\n")  # longer than Python's own limit, which is put back
    assert len(opened(path).train.text[0]) == 250_000 and csv.field_size_limit() == limit
    path.write_bytes(b"\xef\xbb\xbftext,label\r\na,0\r\n\r\nb,1\r\n")  # as a spreadsheet writes it
    assert opened(path).train.text == ("a", "b")


def test_take_keeps_rows_together(tmp_path):
    part = opened(write(tmp_path / "train.jsonl", ROWS), vote_columns=("vote",)).train.take(np.array([1, 0]))
    assert part.text == ("b", "a") and part.label.tolist() == [1, 0] and part.sample_id[0].endswith("00001")
    assert part.votes is not None and part.votes.tolist() == [[-1], [1]]
