"""The report's sentences, made from the numbers so that they stay true whatever the numbers are.

A difference is stated with its sign, its spread and the number of seeds that show it; a lead is called one only where
`sama.report.compare` says that it is clear.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from sama.config import Config
from sama.report.compare import MIN_SEEDS, Comparison, Spread, differs_from, leader, paired, spread
from sama.report.loading import Results
from sama.report.style import label

FOCUS = "meta_weight"
BASELINE = "random"
PROGRAM = {
    "sama": "SAMA",
    "sama_na": "SAMA-NA",
    "darts": "DARTS",
    "neumann": "Neumann series",
    "cg": "conjugate gradients",
    "itd": "iterative differentiation",
    "exact": "exact implicit differentiation",
}


def percent(value: float) -> str:
    """0.3 -> '30 %', 0.975 -> '97.5 %'."""
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def accuracy_text(values: Spread) -> str:
    """'97.5 ± 0.4 %', without ± where there is one seed."""
    return f"{100 * values.mean:.1f}" + (f" ± {100 * values.sd:.1f}" if values.sd is not None else "") + " %"


def auc_text(values: Spread) -> str:
    """'0.998 ± 0.001'; more digits where three would make it a 1 that it is not."""
    digits = next((n for n in (3, 4, 5) if round(values.mean, n) < 1), 3) if values.mean < 1 else 3
    text = f"{values.mean:.{digits}f}"
    if values.sd is None:
        return text
    least = 10.0**-digits
    return f"{text} ± {values.sd:.{digits}f}" if values.sd >= least / 2 else f"{text} ± <{least:.{digits}f}"


def seeds_text(count: int) -> str:
    """'5 seeds'."""
    return "1 seed" if count == 1 else f"{count} seeds"


def band_text(count: int) -> str:
    """What lines and bands of a figure are."""
    return "One seed: no spread is known." if count == 1 else f"Lines: mean of {count} seeds; bands: ± 1 sd over them."


def listed(items: Sequence[str], word: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def difference_text(comparison: Comparison) -> str:
    """'19.3 ± 1.2 points higher, and higher on 5 of 5 seeds', or what the seeds do not allow to say."""
    gap, n = comparison.difference, comparison.difference.n
    size = f"{100 * abs(gap.mean):.1f}" + (f" ± {100 * gap.sd:.1f}" if gap.sd is not None else "")
    direction = "higher" if gap.mean > 0 else "lower"
    on = comparison.higher_on if gap.mean > 0 else comparison.lower_on
    if round(100 * gap.mean, 1) == 0:
        text = "the same to 0.1 points on average" if n > 1 else "the same to 0.1 points"
    else:
        text = f"{size} points {direction}" + (f", and {direction} on {on} of {n} seeds" if n > 1 else "")
    if comparison.clear:
        return text
    if n < MIN_SEEDS:
        return f"{text} ({seeds_text(n)}: too few to tell from chance)"
    return f"{text} (within what the spread over seeds allows by chance)"


def focus_of(results: Results) -> str:
    """The method that the headline is about: the meta weight if it was computed, else the first one but random."""
    return min(results.pruned, key=lambda method: (method != FOCUS, method == BASELINE))


def named(method: str) -> str:
    """The score as the subject of a sentence."""
    return {FOCUS: "the meta weight", BASELINE: "a random score"}.get(method, f"the {label(method)} score")


def pruned_by(method: str) -> str:
    """'pruned by EL2N', 'pruned at random'."""
    return "pruned at random" if method == BASELINE else f"pruned by {label(method)}"


def findings(results: Results, config: Config) -> list[str]:
    """The finding, a paragraph each: detection, accuracy after the mildest pruning, what each score takes."""
    price = f"{supervision_note(results, config)} {cost_finding(results)}".strip()
    paragraphs = [" ".join(detection_findings(results)), " ".join(accuracy_findings(results)), price]
    return [paragraph for paragraph in paragraphs if paragraph]


def cost_finding(results: Results) -> str:
    """What each score costs, in full trainings."""
    costs = [f"{label(method)} {np.mean(values):.1f}" for method, values in results.search_cost.items()]
    return f"Cost of the scores, in full trainings: {listed(costs)}." if costs else ""


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
        shares = [f"{label(method)} {percent(float(np.mean(values)))}" for method, values in kept.items()]
        found.append(f"Mislabelled among the examples that each score keeps: {listed(shares)}.")
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


def accuracy_caption(results: Results) -> str:
    """Caption of the accuracy figure."""
    names = {
        "clean": (results.clean, "training on all clean labels, an upper bound that no method may use"),
        "full": (results.full, "training on all observed labels, nothing pruned"),
        "meta": (results.meta, "the meta-trained model itself, before any pruning"),
    }
    levels = [text for values, text in names.values() if values]
    text = (
        "Test accuracy of networks trained anew on what is left after pruning; every training takes the same "
        "number of optimizer steps. Further up is better. "
    )
    if len(results.ratios) == 1 and len(results.seeds) > 1:
        text += f"Points: mean of {seeds_text(len(results.seeds))}; whiskers: ± 1 sd over them. "
    else:
        text += band_text(len(results.seeds)) + " "
    return text + (f"Horizontal lines (means): {'; '.join(levels)}." if levels else "")


def weights_caption(results: Results) -> str:
    """Caption of the weight distribution."""
    text = (
        "Importance weights of the training examples, as the meta network gives them, divided by their mean over the "
        f"seed. Left: {seeds_text(len(results.seeds))} pooled; right: a thin line a seed and the pooled curve. "
    )
    if results.detection:
        return text + "The less the two groups overlap, the better the weight tells wrong labels from right ones."
    if results.clean_known:
        return text + "No training example is known to be mislabelled."
    return text + "Clean labels are not known here, so this is one distribution; examples far left go first."


def images_caption(results: Results, seed: int, shown: int, wrong: tuple[int, int] | None) -> str:
    """Caption of the image grid; `wrong` counts the mislabelled among the lowest and the highest."""
    text = f"The {shown} training images of lowest and of highest importance weight, seed {seed}, with observed label. "
    if wrong is None:
        return text + "Clean labels are not known here: whether the upper labels are wrong is for the eye to judge."
    return text + (
        "A red frame marks a wrong label and names the true class: "
        f"{wrong[0]} of the lowest, {wrong[1]} of the highest."
    )


def detection_caption(results: Results) -> str:
    """Caption of the detection curves, with what an AUC under 0.5 means."""
    text = (
        "Examples are flagged from the lowest score up; the curves ask how many of the flagged are mislabelled. Left: "
        "the nearer to the upper left corner the better. Right: the higher the better. "
        f"{band_text(len(results.seeds))} "
    )
    under = {
        method: values["auc"]
        for method, values in results.detection.items()
        if method != BASELINE
        and np.mean(values["auc"]) < 0.5
        and (len(results.seeds) < MIN_SEEDS or differs_from(values["auc"], 0.5) < 0)
    }
    if not under:
        return text
    text += "An AUC under 0.5 means that a score ranks the mislabelled examples above the others and so keeps them"
    if "el2n" in under:
        text += "; EL2N does so by design, as it keeps what is hard to learn, and wrong labels are"
    reverse = [f"{label(method)} {1 - float(np.mean(values)):.3f}" for method, values in under.items()]
    return text + (
        f". Read in reverse, such a score detects with 1 − AUC: {listed(reverse)}. "
        "Pruning takes the scores as they are."
    )


def curves_caption(results: Results, ceiling: float | None) -> str:
    """Caption of the learning curves."""
    text = "Left: losses of meta-training, each on the batch of its step. Right: " if "meta" in results.curves else ""
    text += (
        f"accuracy on the validation split while training, pruned runs at {percent(results.ratios[0])}. "
        f"{band_text(len(results.seeds))}"
    )
    if ceiling is not None:
        text += (
            " Validation labels are as noisy as those of the training set: a classifier that is always right would "
            f"score {percent(ceiling)} here (dotted), and more would mean that it follows the noise."
        )
    return sentence(text)


def cost_caption(results: Results) -> str:
    """Caption of the search cost."""
    return (
        "What it takes to compute a score, counted in examples passed forward (1) and backward (2) and expressed in "
        f"full trainings; the retraining after pruning is not included. Mean of {seeds_text(len(results.seeds))}."
    )


def scatter_caption(seed: int, drawn: int, count: int) -> str:
    """Caption of the scatter."""
    part = "" if drawn == count else f", a fixed random {drawn} of {count} drawn"
    return (
        "What the meta network sees and what it says: each point is a training example "
        f"(seed {seed}{part}). Loss, uncertainty and weight are means over the checkpoints of the score."
    )
