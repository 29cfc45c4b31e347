"""The configuration that `sama init` writes for a table of texts, with its reasons as comments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sama.config import TextDataConfig
from sama.own_data import listed, quoted, wrapped

PASSES, LEAST_STEPS, MOST_STEPS = 10, 200, 5000
BATCH = 32
LISTED_FUNCTIONS = 30


@dataclass(frozen=True)
class Found:
    """What a table holds."""

    data: TextDataConfig
    place: Path
    passed: tuple[str, ...]  # columns that look like labels and are not taken
    class_names: tuple[str, ...]
    counts: tuple[int, ...]  # of the weak labels of the train split
    texts: dict[str, int]  # by part of the source
    clean_labels: dict[str, int]  # of these, those whose clean label is known
    examples: dict[str, int]  # by split
    uncovered: dict[str, int]  # without a label to learn from or to measure by, by the split in which they would stand
    votes: dict[str, Any]  # `vote_report` of the training part
    clean_meta: bool  # whether the meta set's labels are clean
    clean_test: bool
    length: int  # tokens that nearly all texts have, by a guess from their words
    longer: int  # texts that have more


def methods_of(found: Found) -> list[str]:
    """Those that such labels allow: Dawid-Skene needs three columns, and clean texts alone need clean texts."""
    several = len(found.data.vote_columns) > 2
    given = {"dawid_skene": several, "clean_only": found.clean_meta, "weak_then_clean": found.clean_meta}
    methods = ("majority_vote", "dawid_skene", "clean_only", "weak_then_clean", "meta_r", "meta_rc", "self_training")
    return [method for method in methods if given.get(method, True)]


def config_text(name: str, found: Found) -> str:
    """The configuration as YAML with comments."""
    data, train = found.data, found.examples["train"]
    batch = min(BATCH, 2 ** max(int(np.log2(train)) - 1, 1))
    steps = min(MOST_STEPS, max(LEAST_STEPS, -(-PASSES * train // batch)))
    parts = ", ".join(f"{part} {count}" for part, count in found.texts.items())
    passed = (
        f"\n# Not taken, though they may be labels too: {', '.join(map(quoted, found.passed))}" if found.passed else ""
    )
    return TEMPLATE.format(
        name=name,
        experiment=quoted(name),
        texts=sum(found.texts.values()),
        classes=len(found.counts),
        parts=f" ({parts})" if len(found.texts) > 1 else "",
        train=train,
        listed=listed(found.class_names, found.counts),
        votes=_votes(found.votes) + passed,
        root=quoted(str(found.place.parent)),
        source=data.source,
        path=quoted(found.place.name),
        text=quoted(data.text_column),
        label="null" if data.label_column is None else quoted(data.label_column),
        columns=", ".join(map(quoted, data.vote_columns)),
        id="null" if data.id_column is None else quoted(data.id_column),
        meta_set=data.meta_set,
        meta=data.splits.meta,
        validation=data.splits.validation,
        test="null" if data.splits.test is None else data.splits.test,
        length=found.length,
        steps=steps,
        passes=round(steps * batch / train),
        batch=batch,
        warmup=steps // 10,
        every=max(steps // 10, 1),
        often=max(steps // 5, 1),
        meta_batch=max(2, min(batch, found.examples["meta"])),
        methods=", ".join(methods_of(found)),
        note=_notes(found),
    )


def _notes(found: Found) -> dict[str, str]:
    """What stands beside single keys of the configuration."""
    data = found.data
    uncovered = found.uncovered.get("train", 0)
    unmeasured = sum(found.uncovered.values()) - uncovered
    held_out = [part for part in found.texts if part != "train" or data.meta_set == "held_out" or data.splits.test]
    partly = ", ".join(
        f"{found.clean_labels[part]} of {found.texts[part]} texts{f' ({part})' if len(found.texts) > 1 else ''}"
        for part in held_out
        if 0 < found.clean_labels[part] < found.texts[part]
    )
    label = "the clean label: for the meta set and for measuring, never to learn from"
    if data.label_column is None:
        label = "nothing is taken to be right; sama init --label-column NAME if a column is"
    elif data.label_column in data.vote_columns:
        label = "clean in validation and test alone"
    return {
        "label": label + (f"; known for {partly}: held-out texts are of these" if partly else ""),
        "uncovered": f"{uncovered} texts have no label; drop: left out of training, uniform: kept"
        + (f"; {unmeasured} held-out texts are left out too" if unmeasured else ""),
        "meta": META_DIVIDED if data.meta_set == "divided" else META_CLEAN if found.clean_meta else META_WEAK,
        "seeds": "each divides the texts anew" + ("" if data.splits.test is None else ", but for the test texts"),
        "test": ("null is your test part" if data.splits.test is None else "of the training part")
        + ("" if found.clean_test else "; its labels are weak ones, and what is measured is agreement with them"),
        "length": f"tokens; about {found.longer} of {found.texts['train']} texts are longer and cut (data/dataset.json"
        " counts them)",
    }


def _votes(report: dict[str, Any]) -> str:
    """What the columns of weak labels say, as lines of a comment."""

    def percent(value: float) -> str:
        return f"{100 * value:.3g}%"

    told = []
    for each in report["functions"][:LISTED_FUNCTIONS]:
        right = "" if each["accuracy"] is None else f", {percent(each['accuracy'])} of it right"
        told.append(f"{quoted(each['name'])} {percent(each['coverage'])}{right}")
    more = len(report["functions"]) - len(told)
    lines = [f"# Labels that may be wrong, and how many of {report['texts']} training texts each column labels:"]
    lines.append(wrapped("; ".join(told) + (f"; and {more} more columns" if more > 0 else "")))
    if len(report["functions"]) > 1:
        lines.append(
            f"# Together: coverage {percent(report['coverage'])}, overlap {percent(report['overlap'])}, conflict"
            f" {percent(report['conflict'])}"
        )
    return "\n".join(lines)


META_DIVIDED = """\
  # Whose loss the weights are to lower: a part of your clean validation texts. Models are chosen on the others."""
META_CLEAN = """\
  # Whose loss the weights are to lower: texts held out of the training part, by clean labels (splits.meta
  # of those that have one)."""
META_WEAK = """\
  # Whose loss the weights are to lower. Nothing says which labels are right here, so none is taken to be: held_out are
  # texts of the training part (splits.meta of them) with labels as they are, training the training texts themselves. So
  # weights and suspects show labels that the others contradict, no error that all share. A validation part with clean
  # labels, even a small one, makes the meta set clean: `sama init` takes a folder with train and validation files."""

TEMPLATE = """\
# {texts} texts{parts} of {classes} classes. {train} to train on, by their weak label (majority of the votes):
{listed}
{votes}
# Written by `sama init`: an overlay on config/texts.yaml, for `make reproduce CONFIG=` and the name of this file.
# `sama config show --describe` and the name of this file explain every key.
workload: texts
experiment: {experiment}  # results go to results/{name}/
seeds: [0, 1, 2]  # {note[seeds]}

data_root: {root}
data:
  source: {source}
  path: {path}
  text_column: {text}
  label_column: {label}  # {note[label]}
  vote_columns: [{columns}]
  id_column: {id}  # null: file and row
  aggregation: majority_vote
  uncovered: drop  # {note[uncovered]}
{note[meta]}
  meta_set: {meta_set}
  # test: {note[test]}
  splits: {{meta: {meta}, validation: {validation}, test: {test}}}
  measure: accuracy  # macro_f1 where classes are of unlike size and count alike

model:
  # null: a small BERT, with random weights and a vocabulary of your training texts, for results in minutes. A
  # pretrained encoder knows the language already: bert-base-uncased or another name of the hub, or a local folder (also
  # below data_root). Learning rates are then 1e-5 to 5e-5, in training and in the grid, and a GPU is wanted.
  name: null
  max_length: {length}  # {note[length]}

training:
  steps: {steps}  # about {passes} passes over {train} texts
  batch_size: {batch}
  optimizer: {{name: adamw, learning_rate: 0.001, weight_decay: 0.01}}
  warmup_steps: {warmup}
  log_every: {every}
  checkpoint_every: {often}

meta:
  batch_size: {meta_batch}

finetuning:
  methods: [{methods}]  # meta_r: weights; meta_rc: weights and corrected labels

# Every method is tuned on validation, on the grids of config/texts.yaml: tuning.grids here replaces one by
# its name, and all need as many candidates.
"""
