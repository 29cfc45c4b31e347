"""The captions of the figures on texts: what is to be seen, how to read it, how many seeds it shows."""

from sama.report.texts_findings import reference
from sama.report.texts_loading import TextResults
from sama.report.texts_style import MEASURES
from sama.report.words import seeds_text, sentence


def measures_caption(results: TextResults) -> str:
    """Caption of the measures on test."""
    count = len(results.seeds)
    spread = "black: their mean; line: ± 1 sd" if count > 1 else "one seed: no spread is known"
    return (
        f"{sentence(MEASURES[results.measure])} on the test split, which is read once. Further right is better. "
        f"A mark a seed ({seeds_text(count)}); {spread}. "
        f"Dashed: the mean of {results.looks[reference(results)].label}. The axis does not begin at 0."
    )


def curves_caption(results: TextResults) -> str:
    """Caption of the validation curves."""
    count = len(results.seeds)
    lines = f"Thick: mean of {count} seeds; band: ± 1 sd; thin: each seed" if count > 1 else "One seed"
    text = (
        f"Validation {MEASURES[results.measure]} while each method is trained, by optimizer steps. {lines}. "
        f"Dashed, grey: the mean of {results.looks[reference(results)].label}."
    )
    return text + (
        " Validation labels are those of the validation split, not the weak ones."
        if all(data.split("validation").known for data in results.data)
        else " Validation labels are weak here."
    )


def weights_caption(results: TextResults, method: str) -> str:
    """Caption of the distribution of a method's weights."""
    text = (
        f"Importance weights of the training texts by {results.looks[method].label}, divided by their mean over the "
        f"seed. Left: {seeds_text(len(results.seeds))} pooled; right: a thin line a seed and the pooled curve. "
    )
    if method in results.detection:
        return text + (
            "Mislabelled: the weak label is not the clean one. The less the two groups overlap, the better the weight "
            "tells wrong labels from right ones."
        )
    return text + "Which weak labels are wrong is not known here, or none is."
