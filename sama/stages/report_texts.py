"""Figures and the self-contained report of an experiment on texts. See `run`."""

from pathlib import Path

from sama.config import TextsConfig
from sama.report import style, texts_captions, texts_figures, texts_page, weight_figures
from sama.report.page import Drawing, write
from sama.report.texts_findings import reference
from sama.report.texts_loading import TextResults, load
from sama.report.texts_style import MEASURES


def run(*, results: Path, out: Path, config: TextsConfig) -> None:
    """Draw the figures and write the page.

    Everything is drawn before the first file is written, so an error leaves the report that was there. The same results
    give the same bytes.

    Args:
        results: folder of the experiment, results/EXPERIMENT in the pipeline.
        out: folder to write to: OUT/index.html and OUT/figures/NAME.svg.
        config: the whole configuration, for the words and the block at the end.

    Raises:
        SamaError: a file of the results is missing or not as expected.
    """
    loaded = load(results, config)
    drawings = draw(loaded)
    write(out, texts_page.render(loaded, config, drawings), drawings)


def draw(results: TextResults) -> dict[str, Drawing]:
    """All figures of these results, by name."""
    start, name = reference(results), MEASURES[results.measure]
    column = f"validation/{results.measure}"
    drawings = {
        "measures": Drawing(
            style.to_svg(texts_figures.measures(results.measured, results.looks, name, start)),
            f"Test {name} of each method, a dot a seed",
            texts_captions.measures_caption(results),
        ),
        "validation_curves": Drawing(
            style.to_svg(texts_figures.curves(results.curves, results.looks, column, name, start)),
            f"Validation {name} of each method by step",
            texts_captions.curves_caption(results),
        ),
    }
    for method, per_seed in results.weights.items():
        drawings[f"weights_{method}"] = Drawing(
            style.to_svg(weight_figures.weights(per_seed)),
            f"Distribution of the importance weight by {results.looks[method].label}, as histogram and cumulated",
            texts_captions.weights_caption(results, method),
        )
    return drawings
