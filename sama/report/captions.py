"""The captions of the figures: what is to be seen, how to read it, how many seeds it shows."""

import numpy as np

from sama.report.agreement import least_shared, pairs, spaced
from sama.report.budget import budget_text
from sama.report.compare import MIN_SEEDS, differs_from
from sama.report.loading import Results
from sama.report.style import MANY, label, signed
from sama.report.words import BASELINE, band_text, listed, percent, seeds_text, sentence


def accuracy_caption(results: Results) -> str:
    """Caption of the accuracy figure."""
    names = {
        "clean": (results.clean, "training on all clean labels, an upper bound that no method may use"),
        "full": (results.full, "training on all observed labels, nothing pruned"),
        "meta": (results.meta, "the meta-trained model itself, before any pruning"),
    }
    levels = [text for values, text in names.values() if values]
    text = (
        "Test accuracy of networks trained anew on what is left after pruning. Further up is better. "
        f"{budget_text(results)} "
    )
    many = len(results.pruned) > MANY
    if (len(results.ratios) == 1 or many) and len(results.seeds) > 1:
        text += f"Points: mean of {seeds_text(len(results.seeds))}; whiskers: ± 1 sd over them. "
        text += "Points of one ratio stand side by side. " if many else ""
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
        f"{band_text(len(results.seeds), len(results.detection))} "
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
        f". Read in reverse, such a score detects with 1 − AUC: {listed(reverse)}. Pruning does not reverse it."
    )


def curves_caption(results: Results, ceiling: float | None) -> str:
    """Caption of the learning curves."""
    text = "Left: losses of meta-training, each on the batch of its step. Right: " if "meta" in results.curves else ""
    text += (
        f"accuracy on the validation split while training, pruned runs at {percent(results.ratios[0])}. "
        f"{band_text(len(results.seeds), len(results.pruned))}"
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
        f"full trainings; the retraining after pruning is not included. {_mean(results)}"
    )


def cost_and_accuracy_caption(results: Results) -> str:
    """Caption of cost against accuracy."""
    text = (
        "Test accuracy against all that was spent for it: the search for the score and the retraining on what is kept, "
        "in full trainings. Further up and further left is better. The cross and the dashed line are the training on "
        f"all observed labels, which costs 1. {budget_text(results)} Points of nearly equal cost stand side by side. "
    )
    return text + _points(results) + _not_shown(results)


def rank_correlation_caption(results: Results) -> str:
    """Caption of the rank correlations: which scores agree most, and which least."""
    agreement = results.agreement
    text = (
        "How alike the scores order the training examples: 1, the same order; 0, unrelated; −1, the reverse. "
        f"{_mean(results)} Methods of similar order stand together. "
    )
    found = _named(pairs(agreement.methods, agreement.correlation.mean(axis=0)), 2, "")
    text += f"Most alike: {found[-1]}" if found else ""
    text += f"; least: {found[0]}." if len(found) > 1 else "." if found else ""
    if np.isnan(agreement.correlation).any():
        text += " –: not defined, for a score is the same for all examples."
    return text


def shared_caption(results: Results) -> str:
    """Caption of what the kept lists share, with what chance gives."""
    agreement = results.agreement
    text = (
        "How many per cent of the examples that one score keeps the other one keeps too (what both keep over the mean "
        "length of the two lists). White: what two random lists share on average, the kept fraction; blue: more; red: "
        f"less. {_mean(results)}"
    )
    for ratio in spaced(results.ratios):
        found = _named(pairs(agreement.methods, 100 * agreement.shared[ratio].mean(axis=0)), 0, " %")
        floor = 100 * least_shared(agreement.kept_fraction[ratio])
        if len(found) > 1:
            text += f" At {percent(ratio)} pruned most is shared by {found[-1]}, least by {found[0]}"
            text += f"; no two lists can share less than {floor:.0f} %." if floor > 0.5 else "."
    return text + _not_shown(results)


def _named(found: list[tuple[float, str, str]], digits: int, unit: str) -> list[str]:
    """'EL2N and margin (−0.12)' for each pair."""
    return [f"{label(a)} and {label(b)} ({signed(value, digits)}{unit})" for value, a, b in found]


def _mean(results: Results) -> str:
    count = len(results.seeds)
    return "One seed." if count == 1 else f"Mean of {seeds_text(count)}."


def _points(results: Results) -> str:
    if len(results.seeds) == 1:
        return "One seed: no spread is known."
    return f"Points: mean of {seeds_text(len(results.seeds))}; whiskers: ± 1 sd over them."


def _not_shown(results: Results) -> str:
    left_out = [percent(ratio) for ratio in results.ratios if ratio not in spaced(results.ratios)]
    return f" Not drawn: {listed(left_out)} pruned." if left_out else ""


def scatter_caption(results: Results, drawn: int, loss_only: bool = False) -> str:
    """Caption of the weights against what their network sees."""
    seed = results.seeds[0]
    weights = (results.loss_only if loss_only else results.weights)[seed]
    count = len(weights.weight)
    part = "" if drawn == count else f"; {drawn:,} of {count:,} are drawn, by lots that do not change"
    names = [name for name, x in (("loss", weights.loss), ("uncertainty", weights.uncertainty)) if x is not None]
    subject = "The meta network that sees the loss alone" if loss_only else "What the meta network sees"
    text = (
        f"{subject} and what it says: each point is a training example (seed {seed}{part}). "
        f"{sentence(listed([*names, 'weight']))} are means over the visits after the start of scoring. "
    )
    if loss_only and weights.uncertainty is not None:
        text += "The uncertainty is that of the other meta training, for this one measures none. "
    if weights.wrong is None:
        return text + "Clean labels are not known here."
    if not weights.wrong.any():
        return text + "No training example is known to be mislabelled."
    return text + (
        "Wrong labels (red) that lie low have lost their say; where red and blue of one loss differ in weight, the "
        "network tells them apart by something else than the loss."
    )
