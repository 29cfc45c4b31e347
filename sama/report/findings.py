"""The findings of the report, sentences made from the numbers so that they stay true whatever the numbers are.

A difference is stated with its sign, its spread and the number of seeds that show it; a lead is called one only where
`sama.report.compare` says that it is clear.
"""

from collections.abc import Mapping

import numpy as np

from sama.config import Config
from sama.report.compare import MIN_SEEDS, differs_from, leader, paired, spread
from sama.report.loading import Results
from sama.report.style import label
from sama.report.words import (
    BASELINE,
    FOCUS,
    accuracy_text,
    auc_text,
    difference_text,
    focus_of,
    listed,
    named,
    percent,
    pruned_by,
    seeds_text,
    sentence,
    shares,
)


def findings(results: Results, config: Config) -> list[str]:
    """The finding, a paragraph each: detection, accuracy after the mildest pruning, what each score takes."""
    price = f"{supervision_note(results, config)} {cost_finding(results)}".strip()
    paragraphs = [" ".join(detection_findings(results)), " ".join(accuracy_findings(results)), price]
    return [paragraph for paragraph in paragraphs if paragraph]


def cost_finding(results: Results) -> str:
    """What each score costs, in full trainings."""
    costs = {method: float(np.mean(values)) for method, values in results.search_cost.items()}
    return f"Cost of the scores, in full trainings: {shares(costs, '{:.1f}'.format)}." if costs else ""


def detection_findings(results: Results) -> list[str]:
    """How well the scores find the mislabelled training examples."""
    aucs = {method: values["auc"] for method, values in results.detection.items()}
    focus = focus_of(results)
    if focus not in aucs:
        return []
    own = spread(aucs[focus])
    found = [
        f"As a detector of wrong labels {named(focus)} reaches an AUC of {auc_text(own)} over {seeds_text(own.n)} "
        "(1: every wrong label ranks as more suspect than every right one; 0.5: chance)."
    ]
    sign = differs_from(aucs[focus], 0.5)
    if sign == 0 and own.n >= MIN_SEEDS:
        found.append("That is not clearly different from chance.")
    elif own.mean < 0.5:
        found.append("Under 0.5 it ranks wrong labels above right ones: pruning by it tends to keep them.")
    others = {method: values for method, values in oriented(aucs).items() if method not in (focus, BASELINE)}
    if others:
        best = leader(others).name
        gap = paired(aucs[focus], others[best])
        text = auc_text(spread(others[best]))
        name = label(best) + (", read in reverse," if others[best] is not aucs[best] else "")
        if gap.difference.mean < 0:
            verdict = "clearly higher" if gap.clear else "higher, though not clearly"
            found.append(f"{sentence(name)} detects with {text}, which is {verdict}.")
        else:
            verdict = "clearly lower" if gap.clear else "not clearly different"
            found.append(f"The best of the other scores is {name} with {text}, which is {verdict}.")
    return found


def oriented(aucs: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """Each score read the way it detects: as it is, or in reverse (1 − AUC) where its mean AUC is under 0.5."""
    return {
        method: values if np.mean(values) >= 0.5 else [1 - value for value in values] for method, values in aucs.items()
    }


def accuracy_findings(results: Results) -> list[str]:
    """Test accuracy at the lowest ratio, against random pruning, the best other score and training on everything."""
    focus, ratio = focus_of(results), results.ratios[0]
    at = results.at(ratio)
    if focus not in at:
        return []
    own = at[focus]
    found = [
        f"With {percent(ratio)} of the training set {pruned_by(focus)}, test accuracy is {accuracy_text(spread(own))}."
    ]
    rivals = {method: values for method, values in at.items() if method not in (focus, BASELINE)}
    against = []
    if BASELINE in at and focus != BASELINE:
        against.append(("random pruning", at[BASELINE]))
    if rivals:
        best = leader(rivals).name
        against.append((f"{label(best)}, the best of the other scores" if len(rivals) > 1 else label(best), at[best]))
    if results.full:
        against.append(("training on all observed labels", results.full))
    for name, values in against:
        found.append(
            f"Compared with {name} ({accuracy_text(spread(values))}) it is {difference_text(paired(own, values))}."
        )
    kept = {method: by_ratio[ratio] for method, by_ratio in results.kept_noise.items() if ratio in by_ratio}
    if kept:
        means = {method: float(np.mean(values)) for method, values in kept.items()}
        found.append(f"Mislabelled among the examples that each score keeps: {shares(means, percent)}.")
    return found


def supervision_note(results: Results, config: Config) -> str:
    """What the meta weight saw that the other scores did not."""
    if FOCUS not in results.pruned:
        return ""
    sizes = {int((data.split_name == "meta").sum()) for data in results.data.values()}
    count = listed([str(size) for size in sorted(sizes)], "or")
    others = " The other scores do not see them." if len(results.pruned) > 1 else ""
    mode = config.data.meta_set
    if mode == "training":
        return "The meta weight was learned with the training set itself as meta set: no further labels were used."
    if mode == "noisy_held_out":
        kind = "labels as noisy as those of the training set"
    else:
        kind = "clean labels" if results.clean_known else "labels that are taken as clean"
    return f"To learn the meta weight, {count} held-out examples with {kind} were used as meta set.{others}"
