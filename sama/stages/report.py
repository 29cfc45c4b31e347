"""Figures and the self-contained report of an experiment. See `run`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sama.config import Config
from sama.errors import SamaError
from sama.report import captions, cost_figures, figures, heat_maps, page, style, suspects, weight_figures
from sama.report.agreement import by_likeness, spaced
from sama.report.budget import total_cost
from sama.report.compare import spread
from sama.report.loading import Results, load
from sama.report.page import Drawing
from sama.report.reading import Suspects
from sama.report.words import auc_text

GRID_IMAGES = 24
SHEET_IMAGES = 48


def run(*, results: Path, out: Path, data_root: Path | None = None, config: Config) -> None:
    """Draw the figures and write the page.

    Everything is drawn before the first file is written, so an error leaves the report that was there. The same results
    give the same bytes.

    Args:
        results: folder of the experiment, results/EXPERIMENT in the pipeline.
        out: folder to write to: OUT/index.html and OUT/figures/NAME.svg.
        data_root: folder that holds the data sets; needed where images stay encoded in it.
        config: the whole configuration, for the captions and the block at the end.

    Raises:
        SamaError: a file of the results is missing or not as expected.
    """
    results, out = Path(results), Path(out)
    loaded = load(results, config.scores.methods, data_root)
    drawings = draw(loaded)
    page.write(out, page.render(loaded, config, drawings), drawings)


def draw(results: Results) -> dict[str, Drawing]:
    """All figures that these results have something for, by name."""
    references = {
        name: values
        for name, values in (("full", results.full), ("clean", results.clean), ("meta", results.meta))
        if values
    }
    drawings = {
        "accuracy": Drawing(
            style.to_svg(figures.accuracy(results.pruned, references)),
            "Test accuracy against pruning ratio for each method",
            captions.accuracy_caption(results),
        ),
        "learning_curves": _learning_curves(results),
        "search_cost": Drawing(
            style.to_svg(cost_figures.search_cost(results.search_cost)),
            "Search cost of each method as bars",
            captions.cost_caption(results),
        ),
    }
    if results.full:
        ratios, cost = spaced(results.ratios), total_cost(results)
        drawings["cost_and_accuracy"] = Drawing(
            style.to_svg(cost_figures.cost_and_accuracy(cost, results.pruned, results.full, ratios)),
            "Test accuracy of each method against the cost of its search and retraining",
            captions.cost_and_accuracy_caption(results),
        )
    if len(results.pruned) > 1:
        drawings |= _agreement(results)
    if results.detection:
        drawings["detection"] = _detection(results)
    if results.weights:
        drawings |= _weight_figures(results)
    if results.suspects is not None and len(results.suspects.labels):
        drawings["suspects"] = _contact_sheet(results, results.suspects)
    return drawings


def _agreement(results: Results) -> dict[str, Drawing]:
    found = results.agreement
    correlation = found.correlation.mean(axis=0)
    order = by_likeness(correlation)
    methods, rows = [found.methods[place] for place in order], np.ix_(order, order)
    shared = {
        ratio: (found.shared[ratio].mean(axis=0)[rows], found.kept_fraction[ratio]) for ratio in spaced(results.ratios)
    }
    return {
        "rank_correlation": Drawing(
            style.to_svg(heat_maps.rank_correlation(methods, correlation[rows])),
            "Spearman's rank correlation of each pair of scores",
            captions.rank_correlation_caption(results),
        ),
        "shared": Drawing(
            style.to_svg(heat_maps.shared(methods, shared)),
            "Share of the kept examples that each pair of scores has in common",
            captions.shared_caption(results),
        ),
    }


def _contact_sheet(results: Results, found: Suspects) -> Drawing:
    data = results.data[found.summary["seeds"][0]]
    place = {sample_id: index for index, sample_id in enumerate(data.sample_id.tolist())}
    tiles = []
    for row in found.labels.head(SHEET_IMAGES).to_dict(orient="records"):
        index = place.get(row["sample_id"])
        if index is None:
            raise SamaError(
                f"suspect_labels.csv: {row['sample_id']} is not in {data.path}: was it made for other data?"
            )
        clean = None if data.clean_label is None else data.class_names[int(data.clean_label[index])]
        image = np.asarray(data.pixels[data.rows[index]])
        tiles.append(weight_figures.Tile(image, row["observed"], clean, row["weight"], row["suggested"]))
    return Drawing(
        style.to_svg(weight_figures.grid([("Most suspect labels: observed → suggested", tiles)])),
        "Training images whose labels the models contradict, with observed and suggested label",
        suspects.caption(results, len(tiles)),
    )


def _detection(results: Results) -> Drawing:
    legend = {
        method: f"{style.label(method)}: AUC {auc_text(spread(values['auc']))}"
        for method, values in results.detection.items()
    }
    return Drawing(
        style.to_svg(figures.detection(results.suspicion, legend)),
        "ROC and precision-recall curves of finding mislabelled examples, by method",
        captions.detection_caption(results),
    )


def _learning_curves(results: Results) -> Drawing:
    ratio = results.ratios[0]
    validation = {cell.removesuffix(f"_{ratio}"): runs for cell, runs in results.curves.items()}
    ceiling = None
    if results.clean_known:
        right = 1 - float(np.mean(results.noise("validation")))
        ceiling = right if right < 1 else None
    return Drawing(
        style.to_svg(figures.learning_curves(results.curves.get("meta", []), validation, ceiling)),
        "Losses of meta-training and validation accuracy of each training, by step",
        captions.curves_caption(results, ceiling),
    )


def _weight_figures(results: Results) -> dict[str, Drawing]:
    seed = results.seeds[0]
    weights = results.weights[seed]
    order = np.argsort(weights.weight, kind="stable")  # ties by sample id
    count = min(GRID_IMAGES, len(order) // 2)
    lowest, highest = _tiles(results, seed, order[:count]), _tiles(results, seed, order[: -count - 1 : -1])
    wrong = (sum(t.wrong for t in lowest), sum(t.wrong for t in highest)) if results.clean_known else None
    return {
        "weights": Drawing(
            style.to_svg(weight_figures.weights(list(results.weights.values()))),
            "Distribution of the importance weight, as histogram and cumulated",
            captions.weights_caption(results),
        ),
        "images": Drawing(
            style.to_svg(weight_figures.images(lowest, highest)),
            "Training images of lowest and of highest importance weight",
            captions.images_caption(results, seed, count, wrong),
        ),
    } | _scatters(results)


def _scatters(results: Results) -> dict[str, Drawing]:
    seed = results.seeds[0]
    networks = {"scatter": results.weights, "scatter_loss_only": results.loss_only}
    return {
        name: Drawing(
            style.to_svg(weight_figures.scatter(weights[seed])),
            "Importance weight against loss and against uncertainty",
            captions.scatter_caption(
                results, min(len(weights[seed].weight), weight_figures.MAX_POINTS), name == "scatter_loss_only"
            ),
        )
        for name, weights in networks.items()
        if weights
    }


def _tiles(results: Results, seed: int, chosen: NDArray[np.intp]) -> list[weight_figures.Tile]:
    data, train = results.data[seed], results.data[seed].split("train")
    relative = results.weights[seed].relative

    def name(index: int, number: int) -> str:
        if not 0 <= number < len(data.class_names):
            where = f"{data.path}: {train.sample_id[index]}"
            raise SamaError(f"{where}: clean label {number} is outside the {len(data.class_names)} classes")
        return data.class_names[number]

    return [
        weight_figures.Tile(
            image=np.asarray(train.pixels[train.rows[i]]),
            observed=name(i, int(train.label[i])),
            clean=None if train.clean_label is None else name(i, int(train.clean_label[i])),
            weight=float(relative[i]),
        )
        for i in chosen
    ]
