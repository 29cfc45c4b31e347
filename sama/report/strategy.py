"""How the kept examples were chosen, and what that took beyond the scores: so that no number hides its strategy."""

from sama.config import Config
from sama.report.words import percent

_DRAWN = "a draw without replacement, in proportion to the score and to a Beta density of the difficulty (beta)"
_READS = {"d2": "features", "beta": "probabilities"}


def selection_text(config: Config) -> str:
    """Which examples of a score stay."""
    selection = config.selection
    cutoff = selection.stratified.hard_cutoff
    chosen = {
        "global": "those of highest score",
        "class_balanced": "those of highest score in each class, as large a part of every class",
        "stratified": "an equal number from each range of scores (stratified, CCS)",
        "d2": "one by one those of highest score, each of which lowers the scores of its neighbours (D2)",
        "beta": _DRAWN,
    }[selection.strategy]
    text = f"Kept are {chosen}."
    if selection.strategy == "stratified" and cutoff:
        text += f" The hardest {percent(cutoff)} go first where a score orders examples by difficulty."
    return text


def uncounted_text(config: Config) -> str:
    """What the strategy reads and the costs leave out; empty where there is nothing."""
    strategy = config.selection.strategy
    read = _READS.get(strategy)
    if read is None:
        return ""
    return f"The {read} that the strategy {strategy} reads of the observed training are not counted here."
