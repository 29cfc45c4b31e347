"""The page of an experiment on texts: tiles, findings, figures with captions, tables, texts, how to reproduce."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import pandas as pd

from sama.config import TextsConfig
from sama.report import texts_tables as tables
from sama.report.compare import spread
from sama.report.page import Drawing, Page, Section, Tile, reproduction, show, shown_config, tile
from sama.report.style import MUTED
from sama.report.tables import overlap_table
from sama.report.texts_findings import findings, is_meta, reference
from sama.report.texts_loading import TextResults
from sama.report.texts_style import AGGREGATIONS, MEASURES
from sama.report.words import accuracy_text, percent, seeds_text, sentence

LINKS = tuple((name, f"../suspects/{name}") for name in ("weights.csv", "suspect_labels.csv"))
TILES = 5  # fill a row
NO_BREAK = "\u00a0"
CAREFUL = "Texts are shown as they stand in the data, cut where they are long."


def render(results: TextResults, config: TextsConfig, drawings: Mapping[str, Drawing]) -> str:
    """The page as HTML text; `drawings` by the name of the figure."""
    return show(
        Page(
            title=results.experiment.replace("_", " "),
            subtitle=subtitle(results, config),
            tiles=tiles(results),
            findings=findings(results, config),
            sections=sections(results, config, drawings),
            source=f"results/{results.experiment}/summary.json",
        )
    )


def subtitle(results: TextResults, config: TextsConfig) -> str:
    """Data, weak labels, model and number of seeds in one line."""
    data, votes = config.data, results.dataset["votes"]
    made = (
        "synthetic texts, made by a grammar"
        if data.source == "synthetic_texts"
        else PurePath(data.path or data.source).name
    )
    count = f"{sum(results.dataset['texts'].values()):,} texts, {len(results.dataset['class_names'])} classes"
    parts = [f"{made}: {count}", f"{len(votes['functions'])} labelling functions" if votes else ""]
    model = "a small BERT with random weights" if config.model.name is None else PurePath(config.model.name).name
    return " · ".join(part for part in (*parts, model, seeds_text(len(results.seeds))) if part)


def tiles(results: TextResults) -> list[Tile]:
    """The headline numbers: the meta methods, what they must be compared with, and how many weak labels are right."""
    headed = [method for method in results.test if is_meta(method) and method != "meta_r_na"]
    wanted = dict.fromkeys([*headed, reference(results), "clean_only", "weak_then_clean"])
    shown = [
        tile(
            accuracy_text(spread(results.measured[method])),
            f"test {MEASURES[results.measure]}, {results.looks[method].label.replace(' ', NO_BREAK)}",
            results.looks[method].colour,
        )
        for method in wanted
        if method in results.test
    ]
    for name, values in list(results.label_accuracy.items())[:1] if len(shown) < TILES else ():
        text = f"of the weak training labels are right ({AGGREGATIONS.get(name, name)})"
        shown.append(tile(accuracy_text(spread(values)), text, MUTED))
    return shown


def sections(results: TextResults, config: TextsConfig, drawings: Mapping[str, Drawing]) -> list[Section]:
    """All parts that these results have something for."""
    name = MEASURES[results.measure]
    parts = [
        Section("measures", f"Test {name}", [], [drawings["measures"]], [tables.measure_table(results)]),
        labels_section(results, config),
        Section("curves", "Validation curves", [], [drawings["validation_curves"]]),
    ]
    if results.weights:
        parts.append(weights_section(results, drawings))
    if results.corrected is not None:
        parts.append(corrected_section(results, results.corrected))
    if results.suspects.summary["method"] is not None:
        parts.append(suspects_section(results))
    tuned = tables.tuning_table(results)
    seeds = seeds_text(len(config.tuning.seeds))
    said = (
        f"Every method has as many candidates, which are compared on the validation split of {seeds} of their own."
        if tuned
        else "Nothing was tuned: every method takes the configuration as it is."
    )
    parts.append(Section("tuning", "Tuning", [said], [], [tuned] if tuned else []))
    parts.append(data_section(results, config))
    command, how = reproduction(config)
    parts.append(Section("reproduce", "Reproduce", [how], command=command, folded=shown_config(config)))
    return parts


def labels_section(results: TextResults, config: TextsConfig) -> Section:
    """What the labelling functions are, and how right their labels."""
    votes, right = results.dataset["votes"], tables.label_table(results)
    texts = ["There are no votes of labelling functions: the labels of the source are learned from as they are."]
    if votes:
        texts = [
            f"{len(votes['functions'])} labelling functions vote on {percent(votes['coverage'])} of the "
            f"{votes['texts']:,} training texts; on {percent(votes['overlap'])} at least two vote, on "
            f"{percent(votes['conflict'])} two disagree. Their votes become a label by "
            f"{AGGREGATIONS[config.data.aggregation]}, but for a method that is named after another aggregation."
        ]
        texts.append(
            "Texts on which all functions abstain are "
            + ("left out." if config.data.uncovered == "drop" else "given a uniform label.")
        )
    functions = [tables.function_table(votes)] if votes else []
    return Section("labels", "Weak labels", texts, [], [*([right] if right else []), *functions])


def weights_section(results: TextResults, drawings: Mapping[str, Drawing]) -> Section:
    """How weights are spread, what they find, and the texts of lowest weight."""
    suspects = results.suspects
    suggested = dict(zip(suspects.labels["sample_id"], suspects.labels["suggested"], strict=True))
    rows = suspects.weights.assign(suggested=[suggested.get(key, "") for key in suspects.weights["sample_id"]])
    columns = {"label": "Weak label", "suggested": "Suggestion", "weight": "Weight"}
    notes = ["Weight 1: mean. Suggestion: what the models hold for more probable than the weak label, if anything."]
    method = suspects.summary["method"]
    found = [table] if (table := tables.detection_table(results)) else []
    if method is not None and len(rows):
        title = f"Texts of lowest weight, by {results.looks[method].label}"
        found.append(tables.text_table(title, rows, columns, results.clean, notes))
    pictures = [drawings[f"weights_{method}"] for method in results.weights]
    return Section("weights", "Importance weights", [CAREFUL], pictures, found)


def corrected_section(results: TextResults, rows: pd.DataFrame) -> Section:
    """What the correction network does to the labels."""
    columns = {"label": "Weak label", "corrected": "Corrected", "gain": "Gain", "weight": "Weight"}
    notes = ["Gain: probability of the corrected class above that of the weak label, mean over the seeds."]
    count = len(results.data[0].split("train"))
    text = f"The correction network prefers another class than the weak label on {len(rows):,} training texts."
    if len(results.seeds) == 1:
        text = f"{text[:-1]} of {count:,}."
    first = [table] if (table := tables.correction_table(results)) else []
    shown = [tables.text_table("Corrected labels, the surest first", rows, columns, results.clean, notes)]
    return Section("corrections", "Corrected labels", [text], [], [*first, *(shown if len(rows) else [])])


def suspects_section(results: TextResults) -> Section:
    """The labels that the models contradict."""
    found = results.suspects
    label = results.looks[found.summary["method"]].label
    text = (
        f"{found.summary['suspects']:,} of {found.summary['texts']:,} training texts have a weak label that the models "
        f"of {label} contradict, on average over {seeds_text(len(results.seeds))}. The suggestion is the class that "
        "they hold for most probable; suspicion is by how much, from 0 to 1, and no probability that the label is "
        "wrong. The models have trained on these labels: a wrong one that they learned is not found."
    )
    columns = {"observed": "Weak label", "suggested": "Suggestion", "suspicion": "Suspicion", "weight": "Weight"}
    checked = tables.checked_table(found.summary)
    shown = [checked] if checked else []
    if len(found.labels):
        shown.append(tables.text_table("Most suspect labels", found.labels, columns, results.clean))
    return Section("suspects", "Suspect labels", [text], [], shown, LINKS)


def data_section(results: TextResults, config: TextsConfig) -> Section:
    """Splits, and what stands in two of them, or in two parts of the source."""
    note = "Counted by content: texts that differ in case and space alone are the same."
    texts: list[str] = []
    overlaps = []
    for kind, reports in (
        ("parts of the source", [results.dataset["overlap"]]),
        ("splits", [data.facts["overlap"] for data in results.data if "overlap" in data.facts]),
    ):
        if (shared := overlap_table(reports, "Texts", note)) is not None:
            overlaps.append(replace(shared, title=f"Overlap of the {kind}"))
        elif any(reports):
            texts.append(f"No two {kind} share a text.")
    clean, counts = results.dataset.get("clean_labels", {}), results.dataset["texts"]
    drawn = config.data.meta_set == "held_out" or not {"validation", "test"} <= counts.keys()
    partly = [
        f"{clean[part]:,} of {count:,} ({part})"
        for part, count in counts.items()
        if 0 < clean.get(part, 0) < count and (drawn or part != "train")
    ]
    if partly:
        texts.append(f"Texts whose clean label is known, which alone are measured on: {', '.join(partly)}.")
    facts = [f"{sentence(key.replace('_', ' '))}: {value}." for key, value in results.dataset["source_facts"].items()]
    shown = [tables.splits_table(results), *overlaps]
    return Section("data", "Data", [*texts, *facts], [], shown)
