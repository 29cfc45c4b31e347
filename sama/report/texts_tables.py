"""The tables of the report on texts, as plain rows of cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from sama.config import flatten
from sama.data.texts.base import UNKNOWN
from sama.report.compare import MIN_SEEDS, Comparison, leader, paired, spread
from sama.report.style import signed
from sama.report.tables import Cell, Table, range_text, spread_words
from sama.report.texts_findings import reference
from sama.report.texts_loading import TextResults
from sama.report.texts_style import AGGREGATIONS, MEASURES
from sama.report.words import accuracy_text, auc_text, percent, seeds_text, sentence

SPLITS = ("train", "uncovered", "meta", "validation", "test")
SHOWN_TEXTS = 15
LONGEST_TEXT = 160
WEAK_TEST = (
    "The labels of the test split are weak ones themselves: these numbers say how far the methods agree with them, not "
    "how often they are right."
)


def measure_table(results: TextResults) -> Table:
    """Method -> measure on test, accuracy besides, difference to the reference, validation, cost."""
    start, measured = reference(results), results.measured
    first = leader(measured)
    also = results.measure != "accuracy"
    rows = []
    for method, values in measured.items():
        cells = [
            Cell(sentence(results.looks[method].label)),
            Cell(accuracy_text(spread(values)), first.clear and first.name == method),
        ]
        if also:
            cells.append(Cell(accuracy_text(spread(results.test[method]["accuracy"]))))
        if method == start:
            cells += [Cell("–"), Cell("–")]
        else:
            gap = paired(values, measured[start])
            cells += [Cell(_points(gap)), Cell(f"{gap.higher_on} of {gap.difference.n}")]
        cells.append(Cell(accuracy_text(spread(results.validation[method]))))
        cells.append(Cell(f"{spread(results.cost[method]).mean:.1f}"))
        rows.append(cells)
    name, against = sentence(MEASURES[results.measure]), results.looks[start].label
    header = ["Method", name, *(["Accuracy"] if also else []), f"− {against}, points", "Higher on seeds"]
    notes = [
        *([WEAK_TEST] if results.measured_against["test"] == "weak" else []),
        f"{name} on the test split, {spread_words(len(results.seeds))}; the difference is paired by seed. "
        "Validation: the weights that are kept. Cost: forward and backward passes in units of the cheapest training, "
        "tuning left out.",
        _bold_note(results, first.clear),
    ]
    return Table("Methods", [*header, "Validation", "Cost"], rows, notes)


def _points(gap: Comparison) -> str:
    sd = gap.difference.sd
    return signed(100 * gap.difference.mean, 1, plus=True) + (f" ± {100 * sd:.1f}" if sd is not None else "")


def _bold_note(results: TextResults, clear: bool) -> str:
    if clear:
        return (
            "Bold: the highest mean, where the 95 % interval of its lead, paired by seed, leaves out zero against "
            "every other method (not corrected for the number of comparisons)."
        )
    if len(results.seeds) < MIN_SEEDS:
        return f"Nothing is set in bold: {seeds_text(len(results.seeds))} cannot tell a lead from chance."
    return "Nothing is set in bold: the spread over seeds does not allow to call the highest mean the best."


def function_table(votes: Mapping[str, Any]) -> Table:
    """Labelling function -> its classes, coverage, overlap, conflict, accuracy."""
    rows = [
        [
            Cell(row["name"]),
            Cell(", ".join(row["classes"]) or "–"),
            *(Cell(percent(row[key])) for key in ("coverage", "overlap", "conflict")),
            Cell("–" if row["accuracy"] is None else percent(row["accuracy"])),
        ]
        for row in votes["functions"]
    ]
    note = (
        "Fractions of all training texts: coverage: the function votes; overlap: another one votes too; conflict: "
        "another one votes for another class. Accuracy is of its votes, where the clean label is known."
    )
    header = ["Labelling function", "Classes", "Coverage", "Overlap", "Conflict", "Accuracy"]
    return Table("Labelling functions", header, rows, [note])


def label_table(results: TextResults) -> Table | None:
    """Aggregation -> accuracy of the training labels that it gives; None where clean labels are unknown."""
    rows = [
        [Cell(sentence(AGGREGATIONS.get(name, name))), Cell(accuracy_text(spread(values)))]
        for name, values in results.label_accuracy.items()
    ]
    note = (
        "Of the covered texts of the train split whose clean label is known, "
        f"{spread_words(len(results.seeds))}. Ties of votes are broken by lot."
    )
    return Table("Weak labels that are right", ["Aggregation", "Right"], rows, [note]) if rows else None


def detection_table(results: TextResults) -> Table | None:
    """Method -> AUC and average precision of finding wrong labels by low weight; None where nothing is known."""
    rows = [
        [
            Cell(sentence(results.looks[method].label)),
            *(Cell(auc_text(spread(values[key]))) for key in ("auc", "average_precision")),
        ]
        for method, values in results.detection.items()
    ]
    note = f"Training texts with known clean label, lowest weight first, {spread_words(len(results.seeds))}."
    return Table("Wrong weak labels found", ["Method", "AUC", "Average precision"], rows, [note]) if rows else None


def correction_table(results: TextResults) -> Table | None:
    """Method -> right labels before and after correction; None where nothing is known."""
    rows = [
        [
            Cell(sentence(results.looks[method].label)),
            Cell(accuracy_text(spread(values["weak_accuracy"]))),
            Cell(accuracy_text(spread(values["corrected_accuracy"]))),
            Cell(_points(paired(values["corrected_accuracy"], values["weak_accuracy"]))),
        ]
        for method, values in results.correction.items()
    ]
    header = ["Method", "Weak labels right", "Corrected labels right", "Difference, points"]
    return Table("Labels before and after correction", header, rows) if rows else None


def checked_table(summary: Mapping[str, Any]) -> Table | None:
    """The first suspects: how many labels are wrong, how many suggestions right; None where that is not known."""
    checked = summary["checked"] or ()
    judged = checked[-1]["first"] if checked else 0
    rows = [
        [
            Cell(f"the first {line['first']:,}" if line["first"] < judged else "all suspects"),
            Cell(percent(line["wrong"] / line["first"])),
            Cell(percent(line["suggested_right"] / line["first"])),
        ]
        for line in checked
    ]
    partly = f"Of the {judged:,} of {summary['suspects']:,} suspects whose clean label is known."
    notes = [partly] if judged < summary["suspects"] else []
    return Table("Suspects that are wrong", ["", "Label wrong", "Suggestion right"], rows, notes) if rows else None


def text_table(
    title: str, rows: pd.DataFrame, columns: Mapping[str, str], clean: Mapping[str, str], notes: Sequence[str] = ()
) -> Table:
    """The first rows with their texts, cut; `columns` of `rows` -> header; the clean label where it is known."""
    shown = [
        [
            Cell(cut(row["text"])),
            *(Cell(_shown(row[name])) for name in columns),
            *([Cell(clean.get(row["sample_id"], "–"))] if clean else []),
        ]
        for row in rows.head(SHOWN_TEXTS).to_dict(orient="records")
    ]
    header = ["Text", *columns.values(), *(["Clean label"] if clean else [])]
    more = [f"{len(shown)} of {len(rows):,}."] if len(rows) > len(shown) else []
    return Table(title, header, shown, [" ".join([*more, *notes])] if more or notes else [])


def _shown(value: str | float) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.2f}"
    return str(value) or "–"


def cut(text: str) -> str:
    """The text in one line of at most LONGEST_TEXT characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1].rstrip() + "…"


def tuning_table(results: TextResults) -> Table | None:
    """Method and candidate -> validation measure, the chosen one in bold; None where nothing was tuned."""
    rows = []
    for method, found in results.tuning.items():
        if len(found["candidates"]) < 2:
            continue
        for place, candidate in enumerate(found["candidates"]):
            chosen = place == found["chosen"]
            said = ", ".join(f"{key} {value}" for key, value in flatten(candidate["overlay"]).items())
            rows.append(
                [
                    Cell(sentence(results.looks[method].label) if place == 0 else ""),
                    Cell(said or "as configured", chosen),
                    Cell(accuracy_text(spread(candidate["validation"])), chosen),
                    Cell("chosen" if chosen else "", chosen),
                ]
            )
    header = ["Method", "Candidate", f"Validation {MEASURES[results.measure]}", ""]
    note = "Of equals the first is chosen. No seed of the tables above took part."
    return Table("Candidates", header, rows, [note]) if rows else None


def splits_table(results: TextResults) -> Table:
    """Split -> texts and those whose label, as a learner sees it, is wrong; a range where seeds differ."""
    rows = []
    for name in SPLITS:
        parts = [data.splits[name] for data in results.data if name in data.splits]
        if parts:
            wrong = [float(((part.label != part.clean_label) & (part.label != UNKNOWN)).mean()) for part in parts]
            known = all(part.known for part in parts) and name != "uncovered"
            shown = accuracy_text(spread(wrong)) if known and max(wrong) > 0 else "none" if known else "–"
            rows.append([Cell(name), Cell(range_text([len(part) for part in parts])), Cell(shown)])
    notes = (
        [
            "uncovered: all labelling functions abstain, or a held-out text has no clean label; not trained on, not"
            " measured on."
        ]
        if any("uncovered" in data.splits for data in results.data)
        else []
    )
    return Table("Splits", ["Split", "Texts", "Label wrong"], rows, notes)
