"""The words that findings, captions and tables share: numbers with their spread, names, differences."""

from collections.abc import Callable, Mapping, Sequence

from sama.report.compare import MIN_SEEDS, Comparison, Spread
from sama.report.loading import Results
from sama.report.style import MANY, label

FOCUS = "meta_weight"
BASELINE = "random"


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


def band_text(count: int, methods: int = 1) -> str:
    """What lines and bands of a figure are; of many methods no bands are drawn."""
    if count == 1:
        return "One seed: no spread is known."
    return f"Lines: mean of {count} seeds" + ("." if methods > MANY else "; bands: ± 1 sd over them.")


def listed(items: Sequence[str], word: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}"


def shares(values: Mapping[str, float], text: Callable[[float], str]) -> str:
    """'EL2N 3 %, margin 4 % and random 30 %'; of many methods the lowest, the highest and the focus."""
    if len(values) <= MANY:
        return listed([f"{label(method)} {text(value)}" for method, value in values.items()])
    order = sorted(values, key=lambda method: values[method])
    said = f"from {text(values[order[0]])} ({label(order[0])}) to {text(values[order[-1]])} ({label(order[-1])})"
    if FOCUS in order[1:-1]:
        said += f"; {label(FOCUS)}: {text(values[FOCUS])}, {order.index(FOCUS) + 1} of {len(order)} from below"
    return said


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
