"""The findings of an experiment on texts, sentences made from the numbers so that they stay true whatever those are.

A difference is stated with its sign, its spread and the number of seeds that show it; a lead is called one only where
`sama.report.compare` says that it is clear.
"""

from collections.abc import Mapping

from sama.config import WEIGHTING, TextsConfig
from sama.report.compare import differs_from, leader, paired, spread
from sama.report.texts_loading import TextResults
from sama.report.texts_style import MEASURES
from sama.report.words import accuracy_text, auc_text, difference_text, listed, seeds_text, sentence

STARTS = ("majority_vote", "finetune")  # what every other method is measured against, where it was run
RIVALS = ("clean_only", "weak_then_clean", "tapt", "multitask")
SYNTHETIC = (
    "The texts are synthetic: a grammar made them and keyword rules labelled them. They show how the methods answer to "
    "labels that are wrong, not how they do on real texts."
)


def findings(results: TextResults, config: TextsConfig) -> list[str]:
    """The findings, a paragraph each: who is best, each meta method against its rivals, wrong labels, what was seen."""
    paragraphs = [SYNTHETIC if config.data.source == "synthetic_texts" else "", best_finding(results)]
    paragraphs += [" ".join(standing(results, method)) for method in results.measured if is_meta(method)]
    paragraphs += [label_finding(results), supervision(results, config)]
    return [paragraph for paragraph in paragraphs if paragraph]


def is_meta(method: str) -> bool:
    """Whether a meta network steers the method."""
    return method in WEIGHTING


def reference(results: TextResults) -> str:
    """The method that differences are taken to."""
    return next((method for method in STARTS if method in results.test), next(iter(results.test)))


def best_finding(results: TextResults) -> str:
    """The highest mean on test, and whether it may be called the best."""
    measured, looks = results.measured, results.looks
    first = leader(measured)
    text = (
        f"The highest {MEASURES[results.measure]} on the test split is that of {looks[first.name].label}: "
        f"{accuracy_text(spread(measured[first.name]))} over {seeds_text(len(results.seeds))}."
    )
    if first.second is None or first.lead is None:
        return text
    second = f"{looks[first.second].label} ({accuracy_text(spread(measured[first.second]))})"
    if first.clear:
        return f"{text} It leads every other method clearly; {second} comes next."
    text += f" Compared with the next, {second}, it is {difference_text(first.lead)}."
    return text + (" Its lead over another method is not clear." if first.lead.clear else "")


def standing(results: TextResults, method: str) -> list[str]:
    """A meta method against the plain start, the clean set alone or last, and the best without a meta level."""
    measured, looks = results.measured, results.looks
    plain = {name: values for name, values in measured.items() if not is_meta(name)}
    if not plain:
        return []
    best = leader(plain).name
    found = [f"{looks[method].label} reaches {accuracy_text(spread(measured[method]))}."]
    for name in dict.fromkeys([*STARTS, *RIVALS, best]):
        if name in plain:
            called = looks[name].label + (", the best without a meta level" if name == best and len(plain) > 1 else "")
            found.append(
                f"Compared with {called} ({accuracy_text(spread(plain[name]))}) it is "
                f"{difference_text(paired(measured[method], plain[name]))}."
            )
    return found


def label_finding(results: TextResults) -> str:
    """How well low weights find wrong weak labels, and what correction does to the labels."""
    found = []
    if results.detection:
        aucs = {method: values["auc"] for method, values in results.detection.items()}
        told = [f"{results.looks[method].label} {auc_text(spread(values))}" for method, values in aucs.items()]
        text = f"A low weight as a sign of a wrong weak label has an AUC of {listed(told)} (1: perfect; 0.5: chance)."
        under = [method for method, values in aucs.items() if differs_from(values, 0.5) < 0]
        if under:
            names = listed([results.looks[method].label for method in under])
            text += f" Under 0.5, as with {names}, wrong labels have the higher weights."
        found.append(text)
    for method, values in results.correction.items():
        before, after = values["weak_accuracy"], values["corrected_accuracy"]
        found.append(
            f"{sentence(results.looks[method].label)} changes the fraction of right training labels from "
            f"{accuracy_text(spread(before))} to {accuracy_text(spread(after))}, which is "
            f"{difference_text(paired(after, before))}."
        )
    return " ".join(found)


def supervision(results: TextResults, config: TextsConfig) -> str:
    """Which labels beyond the weak ones the methods see."""
    validation = len(results.data[0].split("validation"))
    meta = results.data[0].split("meta")
    kind = "clean labels" if meta.name != "train" and meta.known else "weak labels"
    tuned, kept = bool(config.tuning.grids), config.training.keep == "best"
    chosen = " and ".join(["hyperparameters"] * tuned + ["the weights to keep"] * kept)
    text = {
        "divided": f"The meta set has {len(meta):,} texts with {kind}",
        "held_out": f"The meta set has {len(meta):,} held-out texts with {kind}",
        "training": "The training texts themselves serve as meta set",
        "validation_as_both": f"The {validation:,} validation texts are the meta set too, so that methods which learn "
        "from it are chosen on what they have seen",
    }[config.data.meta_set]
    learners = _named(results, ("clean_only", "weak_then_clean"))
    others = _named(results, ("majority_vote", "dawid_skene", "self_training"))
    if learners and others:
        text += f"; {learners} learn{'s' if ' and ' not in learners else ''} from it as well, {others} not"
    if config.meta.options.displace and any(is_meta(method) for method in results.test):
        text += (
            ". The meta methods learn from it twice: through the weights, and because every meta step moves the model "
            f"itself down the loss of the meta set, by a length of α = {config.meta.alpha:g} (displacement) where no "
            "candidate says otherwise"
        )
    if not chosen:
        return f"{text}. Nothing is chosen on the {validation:,} validation texts."
    return f"{text}. On {validation:,} validation texts {chosen} are chosen, for all methods alike."


def _named(results: TextResults, methods: tuple[str, ...]) -> str:
    looks: Mapping[str, object] = results.looks
    names = [results.looks[method].label for method in methods if method in looks]
    return listed([f"“{name}”" for name in names]) if names else ""
