"""The hub source, in a process of its own whose hub does not answer: the client reads its address when it is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys, time
time.sleep = lambda seconds: None  # between attempts
sys.modules["datasets"] = None
import sama.data.texts
light = [name for name in ("torch", "transformers") if name in sys.modules]
try:
    sama.data.texts.open_texts(sama.data.texts.TextOptions("hub", path="x"))
except sama.errors.SamaError as error:
    absent = str(error)
del sys.modules["datasets"]
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from sama.data.texts import TextOptions, open_texts
from sama.errors import SamaError

root = sys.argv[1]
features = Features({"sentence": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "rule": Value("int64")})
rows = {"sentence": ["a", "b"], "label": [1, 0], "rule": [None, 1]}
held = Dataset.from_dict(rows, features=features)
DatasetDict({"train": held, "dev": held.select([1])}).save_to_disk(f"{root}/copy")
DatasetDict({"first": held}).save_to_disk(f"{root}/odd")
labels = {"label": ClassLabel(names=["2", "1"]), "rule": ClassLabel(names=["1", "2"])}
weak = Features({"sentence": Value("string"), **labels})
rows = {"sentence": ["a", "b", "c", "d"], "label": [1, 0, -1, None], "rule": [1, 0, None, -1]}
DatasetDict({"train": Dataset.from_dict(rows, features=weak)}).save_to_disk(f"{root}/weak")
voted = {"sentence": Value("string"), "rule": ClassLabel(names=["b", "a"])}
for name, kind, label in (("strings", "string", ["a", "b", "c", None]), ("numbers", "int64", [0, 1, 1, 0])):
    features = Features({**voted, "label": Value(kind)})
    DatasetDict({"train": Dataset.from_dict(rows | {"label": label}, features=features)}).save_to_disk(f"{root}/{name}")

def tried(**options):
    try:
        source = open_texts(TextOptions("hub", text_column="sentence", **options))
    except SamaError as error:
        return str(error)
    return [source.class_names, {n: [p.sample_id.tolist(), p.text, p.label.tolist(), p.votes is not None
            and p.votes.tolist()] for n, p in source.parts.items()}]

def model():
    from sama.data.texts.tokens import open_tokenizer
    try:
        open_tokenizer("someone/some-model", 8)
    except SamaError as error:
        return str(error)

from pathlib import Path
print(json.dumps({
    "copy": tried(root=Path(root), path="copy", vote_columns=("rule",)),
    "absolute": tried(path=f"{root}/copy"),
    "column": tried(root=Path(root), path="copy", label_column="stars"),
    "weak": tried(root=Path(root), path="weak", vote_columns=("rule",)),
    "votes": tried(root=Path(root), path="weak", vote_columns=("rule",), label_column=None),
    "strings": tried(root=Path(root), path="strings", vote_columns=("rule",)),
    "numbers": tried(root=Path(root), path="numbers", vote_columns=("rule",)),
    "odd": tried(root=Path(root), path="odd"),
    "unreachable": tried(root=Path(root), path="someone/some-texts"),
    "model": model(), "nothing": tried(), "nowhere": tried(path=f"{root}/nowhere"), "light": light, "absent": absent,
}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("hub")
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(folder / "home")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


def test_a_local_copy_is_read_with_its_class_names(outcome):
    names, parts = outcome["copy"]
    assert names == ["neg", "pos"]
    assert parts == {
        "train": [["train/00000", "train/00001"], ["a", "b"], [1, 0], [[-1], [1]]],
        "validation": [["dev/00000"], ["b"], [0], [[1]]],
    }
    assert outcome["absolute"][1]["train"] == [["train/00000", "train/00001"], ["a", "b"], [1, 0], False]


def test_votes_are_read_by_their_own_class_names(outcome):
    names, parts = outcome["weak"]
    assert names == ["2", "1"] and parts["train"][2:] == [[1, 0, -1, -1], [[0], [1], [-1], [-1]]]
    names, parts = outcome["votes"]
    assert names == ["1", "2"] and parts["train"][2:] == [[-1] * 4, [[1], [0], [-1], [-1]]]
    names, parts = outcome["strings"]  # a label column without names of its own
    assert names == ["a", "b", "c"] and parts["train"][2:] == [[0, 1, 2, -1], [[0], [1], [-1], [-1]]]
    assert outcome["numbers"].endswith("expected class names or numbers as labels, got both: 'a' and 0")


def test_a_hub_out_of_reach_is_one_line_that_says_how_to_use_a_copy(outcome):
    message = outcome["unreachable"]
    assert message.startswith("hub data set 'someone/some-texts': Couldn't reach 'someone/some-texts' on the Hub")
    assert message.endswith(
        "where the hub can be reached, datasets.load_dataset('someone/some-texts').save_to_disk(FOLDER) makes a local "
        "copy; then set data.path to that folder"
    )
    assert outcome["model"].startswith("model 'someone/some-model': We couldn't connect to 'http://127.0.0.1:9'")
    assert outcome["model"].endswith("by save_pretrained(FOLDER); then set model.name to that folder")
    assert "\n" not in message + outcome["model"]
    assert "Retrying" not in outcome["stderr"] and "127.0.0.1" not in outcome["stderr"]


def test_wrong_splits_columns_and_names_are_said(outcome):
    assert outcome["odd"] == "hub data set 'odd': expected a split 'train', got first"
    assert outcome["column"] == "hub data set 'copy', split train: expected a column 'stars', got sentence, label, rule"
    assert "expected a folder, or the name of a data set on the hub, found nothing at /" in outcome["nowhere"]
    assert outcome["nothing"].startswith("data.path: source 'hub' needs the name of the data set")


def test_the_package_is_needed_for_this_source_alone(outcome):
    assert outcome["light"] == []
    assert outcome["absent"] == "hub data set 'x': needs the package datasets: pip install 'sama[text]'"
