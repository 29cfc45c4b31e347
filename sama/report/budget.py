"""What was spent: the budget of the retraining, read from its files, and the cost of search and retraining together."""

from sama.report.loading import Results


def total_cost(results: Results) -> dict[str, dict[float, list[float]]]:
    """method -> ratio -> search and retraining together, one value a seed; 1 is the training on all examples."""
    full = results.retraining["full"]
    return {
        method: {
            ratio: [
                search + own.units / whole.units
                for search, own, whole in zip(
                    results.search_cost[method], results.retraining[f"{method}_{ratio}"], full, strict=True
                )
            ]
            for ratio in by_ratio
        }
        for method, by_ratio in results.pruned.items()
    }


def budget_text(results: Results) -> str:
    """How long the retrainings are, as their summaries say: for the same steps, the same epochs, or neither."""
    trainings = [own for by_seed in results.retraining.values() for own in by_seed]
    steps = sorted({own.steps for own in trainings})
    if len(steps) == 1:
        return f"Every retraining takes {steps[0]:,} optimizer steps, however many examples are kept."
    between = f"between {steps[0]:,} and {steps[-1]:,} optimizer steps"
    if same_epochs(results):
        return f"Every retraining takes the same number of epochs: {between}, fewer where fewer examples are kept."
    return f"The retrainings take {between}."


def same_epochs(results: Results) -> bool:
    """Whether the steps of each model are to those of its seed's full training as their examples are (± 1 step)."""
    full = results.retraining.get("full", [])
    return bool(full) and all(
        abs(own.steps - whole.steps * own.examples / whole.examples) <= 1
        for by_seed in results.retraining.values()
        for own, whole in zip(by_seed, full, strict=True)
    )
