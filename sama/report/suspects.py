"""The report's part on suspect labels: what they are, how many are wrong where that is known, where the lists stand."""

from sama.config import Config
from sama.report.loading import Results
from sama.report.reading import Suspects
from sama.report.tables import Cell, Table
from sama.report.words import listed, percent, seeds_text

FILES = ("kept.csv", "suspect_labels.csv")
LINKS = tuple((name, f"../suspects/{name}") for name in FILES)


def texts(found: Suspects, config: Config) -> list[str]:
    """What the lists hold, and what weight and suspicion mean."""
    facts = found.summary
    images, held_out, seeds = facts["images"], facts["held_out"], facts["seeds"]
    whose = f"of seed {seeds[0]}" if len(seeds) == 1 else f"of {seeds_text(len(seeds))}"
    text = (
        f"{facts['suspects']:,} of {images:,} images have a label that the meta-trained models {whose} "
        "contradict. The suggested label is the one that they hold for most probable; suspicion is by how much, from 0 "
        "to 1. It is no probability that the label is wrong. "
    )
    if held_out:
        text += f"{held_out:,} images are judged by models that never saw them; "
    text += (
        f"{'the other ' if held_out else 'all '}{images - held_out:,} only by models that trained on them and may have "
        "learned a wrong label: of those, fewer are found."
    )
    if config.data.noise.kind != "none" and len(config.seeds) > 1:
        text += " The noise is planted anew for each seed, so the lists are those of the first."
    return [text, weight_text(config), kept_text(facts["kept"], len(seeds))]


def weight_text(config: Config) -> str:
    """What a low weight says in this mode of the meta set."""
    text = "The weight (1: mean) says how much an example is to count so that the loss on the meta set falls. "
    if config.data.meta_set == "clean_held_out":
        return text + "With a meta set whose labels are right, a low weight marks what is wrong or of no use."
    return text + (
        "With a meta set as noisy as the training set, a low weight marks what is easily learned, and wrong labels may "
        "well have high ones: a label is not suspect for its weight here."
    )


def kept_text(kept: dict[str, int], seeds: int) -> str:
    """What kept.csv holds."""
    if not kept:
        return "kept.csv is empty, for meta_weight is not among the scores."
    counts = listed([f"{count:,} at {percent(float(ratio))}" for ratio, count in kept.items()])
    rule = "the weight keeps" if seeds == 1 else "the weight keeps in at least half of the seeds that trained on them"
    return f"kept.csv has the images that {rule}, by pruning ratio: {counts} pruned."


def table(found: Suspects) -> Table | None:
    """The first suspects: how many labels are wrong, how many suggestions right; None where that is not known."""
    checked = found.summary["checked"]
    if checked is None or not checked["first"]:
        return None
    rows = [
        [
            Cell(f"the first {line['suspects']:,}" if line["suspects"] < found.summary["suspects"] else "all suspects"),
            Cell(percent(line["wrong"] / line["suspects"])),
            Cell(percent(line["suggestion_right"] / line["suspects"])),
            Cell(percent(line["wrong"] / checked["wrong_labels"]) if checked["wrong_labels"] else "–"),
        ]
        for line in checked["first"]
    ]
    note = f"{percent(checked['wrong_labels'] / found.summary['images'])} of all these labels are wrong."
    return Table(
        "Suspects that are wrong", ["", "Label wrong", "Suggestion right", "Of all wrong labels"], rows, [note]
    )


def caption(results: Results, shown: int) -> str:
    """Caption of the contact sheet."""
    text = f"The {shown} most suspect labels: observed → suggested. "
    if results.clean_known:
        return text + "A red frame marks a label that is wrong, a tick a suggestion that is right."
    return text + "Clean labels are not known here: which of the two is right is for the eye to judge."
