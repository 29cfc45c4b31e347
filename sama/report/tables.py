"""The tables of the report as plain rows of cells; what is bold is decided by the spread, not by the mean alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sama.report.budget import total_cost
from sama.report.compare import MIN_SEEDS, Leader, Spread, leader, paired, spread
from sama.report.loading import Results
from sama.report.style import label, signed
from sama.report.words import BASELINE, accuracy_text, auc_text, focus_of, listed, percent, seeds_text, sentence

SPLITS = ("train", "meta", "validation", "test")


@dataclass(frozen=True)
class Cell:
    """Text of a cell; `best` sets it in bold; `span` columns wide."""

    text: str
    best: bool = False
    span: int = 1


@dataclass(frozen=True)
class Table:
    """Title, header, rows (first cell: its name) and the notes below."""

    title: str
    header: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def accuracy_table(results: Results) -> Table:
    """Method × ratio, mean ± sd; then the references, which have no ratio; then the focus against random."""
    ratios = results.ratios
    leaders = {ratio: leader(results.at(ratio)) for ratio in ratios}
    rows = []
    for method, by_ratio in results.pruned.items():
        cells = [Cell(sentence(label(method)))]
        for ratio in ratios:
            best = leaders[ratio].clear and leaders[ratio].name == method
            cells.append(Cell(accuracy_text(spread(by_ratio[ratio])), best) if ratio in by_ratio else Cell("–"))
        rows.append(cells)
    focus = focus_of(results)
    if BASELINE in results.pruned and focus != BASELINE:
        rows.append([Cell(f"{sentence(label(focus))} − random, points"), *_gaps(results, focus)])
    for name, values in (
        ("No pruning: all observed labels", results.full),
        ("No pruning: all clean labels (upper bound)", results.clean),
        ("Meta-trained model itself", results.meta),
    ):
        if values:
            rows.append([Cell(name), Cell(accuracy_text(spread(values)), span=len(ratios))])
    notes = [f"Test accuracy, {spread_words(len(results.seeds))}.", *_bold_notes(results, leaders)]
    return Table("Test accuracy", ["Method", *(f"{percent(ratio)} pruned" for ratio in ratios)], rows, notes)


def _gaps(results: Results, focus: str) -> list[Cell]:
    cells = []
    for ratio in results.ratios:
        at = results.at(ratio)
        if focus in at and BASELINE in at:
            gap = paired(at[focus], at[BASELINE]).difference
            cells.append(
                Cell(signed(100 * gap.mean, 1, plus=True) + (f" ± {100 * gap.sd:.1f}" if gap.sd is not None else ""))
            )
        else:
            cells.append(Cell("–"))
    return cells


def spread_words(count: int) -> str:
    """What 'mean ± sd' is over."""
    return "one seed" if count == 1 else f"mean ± 1 sd of {seeds_text(count)}"


def _bold_notes(results: Results, leaders: Mapping[float, Leader]) -> list[str]:
    if len(results.pruned) == 1:
        return []
    if len(results.seeds) < MIN_SEEDS:
        return [f"Nothing is set in bold: {seeds_text(len(results.seeds))} cannot tell a lead from chance."]
    notes = []
    if any(first.clear for first in leaders.values()):
        notes.append(
            "Bold: the highest mean of its column, where the 95 % interval of its lead, paired by seed, leaves out "
            "zero against every other method (not corrected for the number of comparisons)."
        )
    unclear: dict[str, list[str]] = {}
    for ratio, first in leaders.items():
        if not first.clear and first.second is not None:
            unclear.setdefault(first.name, []).append(percent(ratio))
    for name, ratios in unclear.items():
        notes.append(
            f"At {listed(ratios)} nothing is set in bold: {label(name)} has the highest mean, but the spread over "
            "seeds does not allow to call it the best."
        )
    return notes


def detection_table(results: Results) -> Table:
    """Method -> AUC and average precision."""
    leaders = {
        key: leader({method: values[key] for method, values in results.detection.items()})
        for key in ("auc", "average_precision")
    }
    rows = [
        [
            Cell(sentence(label(method))),
            *(
                Cell(auc_text(spread(values[key])), first.clear and first.name == method)
                for key, first in leaders.items()
            ),
        ]
        for method, values in results.detection.items()
    ]
    rule = "; bold by the same rule as above" if any(first.clear for first in leaders.values()) else ""
    notes = [f"Over all training examples, {spread_words(len(results.seeds))}{rule}."]
    return Table("Wrong labels found", ["Method", "AUC", "Average precision"], rows, notes)


def kept_noise_table(results: Results) -> Table:
    """Method × ratio: how many of the kept examples are mislabelled."""
    rows = [
        [
            Cell(sentence(label(method))),
            *(Cell(accuracy_text(spread(by_ratio[r])) if r in by_ratio else "–") for r in results.ratios),
        ]
        for method, by_ratio in results.kept_noise.items()
    ]
    before = _exact(results.noise("train"))
    note = f"{sentence(spread_words(len(results.seeds)))}; before pruning: {before}."
    header = ["Method", *(f"{percent(ratio)} pruned" for ratio in results.ratios)]
    return Table("Mislabelled among the kept examples", header, rows, [note])


def cost_table(results: Results) -> Table:
    """Method -> search cost, and search and retraining together, in full trainings; a column a ratio if they differ."""
    total = total_cost(results) if results.full else {}
    means = {
        method: {ratio: spread(values) for ratio, values in by_ratio.items()} for method, by_ratio in total.items()
    }
    alike = all(len({_plain(value) for value in by_ratio.values()}) == 1 for by_ratio in means.values())
    ratios = results.ratios[:1] if alike else results.ratios
    rows = []
    for method, values in results.search_cost.items():
        cells = [Cell(sentence(label(method))), Cell(_plain(spread(values)))]
        if total:
            by_ratio = means.get(method, {})
            first = next(iter(by_ratio.values()), None)
            shown = [first] if alike else [by_ratio.get(ratio) for ratio in ratios]
            cells += [Cell(_plain(value) if value else "–") for value in shown]
        rows.append(cells)
    names = ["With retraining"] if alike else [f"With retraining, {percent(ratio)} pruned" for ratio in ratios]
    return Table("Cost in full trainings", ["Method", "Search", *(names if total else [])], rows)


def shared_table(results: Results) -> Table:
    """Method × ratio: how much of its kept list the focus keeps too; the last row is what random lists share."""
    agreement, focus = results.agreement, focus_of(results)
    own = agreement.methods.index(focus)
    rows = []
    for place, method in enumerate(agreement.methods):
        if method == focus:
            continue
        values = [agreement.shared[ratio][:, own, place] for ratio in results.ratios]
        cells = [Cell("–" if np.isnan(value).any() else accuracy_text(spread(value.tolist()))) for value in values]
        rows.append([Cell(sentence(label(method))), *cells])
    chance = [Cell(percent(agreement.kept_fraction[ratio])) for ratio in results.ratios]
    rows.append([Cell("Two random lists, on average"), *chance])
    header = ["Method", *(f"{percent(ratio)} pruned" for ratio in results.ratios)]
    note = (
        f"{sentence(spread_words(len(results.seeds)))}. The share of a kept list that is also kept by {label(focus)}."
    )
    return Table(f"Kept in common with {label(focus)}", header, rows, [note])


def _plain(values: Spread) -> str:
    return f"{values.mean:.2f}" + (f" ± {values.sd:.2f}" if values.sd and values.sd >= 0.005 else "")


def splits_table(results: Results) -> Table:
    """Split -> examples, classes, mislabelled; a range where seeds differ."""
    rows = []
    for split in SPLITS:
        if not all(split in data.split_names for data in results.data.values()):
            continue
        parts = [data.split(split) for data in results.data.values()]
        classes = [len(np.unique(part.label)) for part in parts]
        cells = [Cell(split), Cell(range_text([len(part) for part in parts])), Cell(range_text(classes))]
        if results.clean_known:
            wrong = results.noise(split)
            cells.append(Cell(_exact(wrong) if max(wrong) else "none"))
        rows.append(cells)
    header = ["Split", "Examples", "Classes", *(["Mislabelled"] if results.clean_known else [])]
    note = f"Counts of each of {seeds_text(len(results.seeds))}, a range where they differ."
    return Table("Splits", header, rows, [note] if len(results.seeds) > 1 else [])


def _exact(fractions: Sequence[float]) -> str:
    return percent(fractions[0]) if max(fractions) - min(fractions) < 0.0005 else accuracy_text(spread(fractions))


def range_text(values: Sequence[int]) -> str:
    """'1,200', or '1,190–1,210' where seeds differ."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def overlap_table(reports: Sequence[Mapping[str, Any]], kind: str, note: str) -> Table | None:
    """Pair of splits -> contents that stand in both, a range where reports differ; None where all are zero."""
    pairs = sorted({pair for report in reports for pair in report})
    if not any(report[pair]["shared"] for report in reports for pair in report):
        return None
    rows = [
        [Cell(pair.replace("/", " and ")), Cell(range_text([int(r[pair]["shared"]) for r in reports if pair in r]))]
        for pair in pairs
    ]
    return Table("Overlap", ["Splits", f"{kind} in both"], rows, [note])
