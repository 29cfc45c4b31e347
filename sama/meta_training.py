"""Meta training that images and texts share: the bilevel loop of a recipe, and what is watched of its base steps."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sama import interruption
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.distributed import anybody, averaged, interleaved
from sama.bilevel.loop import BilevelLoop, Stateful, StepResult
from sama.hypergradient import knobs_of
from sama.hypergradient.program import Program
from sama.training import Cost, Examples, Recipe, Validation, make_optimizer, make_scheduler


class Options(Protocol):
    """Further knobs of a hypergradient method."""

    def given(self) -> dict[str, Any]: ...  # noqa: D102


class MetaRecipe(Protocol):
    """The meta level; `sama.config.BilevelConfig` is one."""

    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def options(self) -> Options: ...  # noqa: D102
    @property
    def unroll_steps(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def accumulate(self) -> int: ...  # noqa: D102
    @property
    def clip_norm(self) -> float | None: ...  # noqa: D102


def make_loop(
    program: Program,
    model: nn.Module,
    network: nn.Module,
    training: Examples,
    meta_examples: Examples,
    recipe: Recipe,
    meta: MetaRecipe,
    *,
    seed: int,
    batch: Callable[[Any, Tensor, Tensor], Any],
    device: torch.device,
    after_base_step: Callable[[], None] | None = None,
    extra_state: Mapping[str, Stateful] | None = None,
    meta_batch: Callable[[Any, Tensor, Tensor], Any] | None = None,
    group: dist.ProcessGroup | None = None,
) -> BilevelLoop:
    """The loop that trains `model` by `recipe` on `training` and `network` by `meta` on `meta_examples`.

    Args:
        program: the two losses.
        model: module of θ. network: module of λ, trained by Adam.
        training, meta_examples: the examples of the base and the meta level.
        recipe, meta: of the two levels.
        seed: of the order of the examples and their random changes, 2s and 2s + 1.
        batch: (inputs, labels [batch, …], indices [batch]) -> a base batch of the program.
        device: where the model is.
        after_base_step, extra_state: as `BilevelLoop` takes them.
        meta_batch: `batch` for the meta level; None: the same.
        group: processes that train together, each on its share of a step's micro-batches, of which there are
            `accumulate` in all. A meta step is the mean of their own hypergradients (`BilevelLoop`).
    """
    rank, world_size = (0, 1) if group is None else (group.rank(), group.size())

    def shuffled(data: Examples, size: int, seed: int, batch: Callable[[Any, Tensor, Tensor], Any]) -> ShuffledBatches:
        def make(indices: Tensor, generator: torch.Generator) -> Callable[[], Any]:
            inputs = data.begin(indices, device, recipe.augment, generator)
            return lambda: batch(inputs(), data.labels[indices].to(device), indices)

        share = {"rank": rank, "world_size": world_size}
        return ShuffledBatches(len(data), size, seed, make, ahead=data.ahead, order=data.order(size), **share)

    optimizer = make_optimizer(recipe.optimizer, model.parameters())
    return BilevelLoop(
        program,
        model,
        network,
        optimizer,
        torch.optim.Adam(network.parameters(), lr=meta.learning_rate),
        shuffled(training, recipe.batch_size // recipe.accumulate, 2 * seed, batch),
        shuffled(meta_examples, meta.batch_size // meta.accumulate, 2 * seed + 1, meta_batch or batch),
        method=meta.method,
        alpha=meta.alpha,
        options=meta.options.given(),
        unroll_steps=meta.unroll_steps,
        accumulate=recipe.accumulate // world_size,
        meta_accumulate=meta.accumulate // world_size,
        clip_norm=recipe.clip_norm,
        meta_clip_norm=meta.clip_norm,
        precision=recipe.precision,
        schedulers=[make_scheduler(recipe, optimizer)],
        after_base_step=after_base_step,
        extra_state=extra_state,
        group=group,
    )


class Watched:
    """Means over the visits of an example, from step `first_step` on, of what a program says of it in base steps.

    A base step computes it anyway, so watching costs nothing; a pass in eval mode would show a meta network features
    that it has not been trained on, because BatchNorm then uses its running statistics (docs/log.md has the figures).

    Args:
        examples: n.
        names: of the k numbers.
        first_step: earlier steps are not counted.
        values: features [batch, …] of a base step -> the numbers [batch, k].
        indices: batch of the program -> the examples in it, int64 [batch].
        group: processes that train together: each sees the micro-batches of all, in the order of the stream, so that
            the means are those of one process, and the same in each.
    """

    def __init__(
        self,
        examples: int,
        names: tuple[str, ...],
        first_step: int,
        values: Callable[[Tensor], Tensor],
        indices: Callable[[Any], Tensor] = lambda batch: batch.indices,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = group
        self.names, self.first_step, self.values, self.indices = names, first_step, values, indices
        self.sums = torch.zeros(examples, len(names), dtype=torch.float64)
        self.visits = torch.zeros(examples, dtype=torch.float64)

    @torch.no_grad()
    def watch(self, result: StepResult) -> None:
        """Add a base step."""
        if result.step < self.first_step:
            return
        seen = [
            torch.cat([self.indices(batch)[:, None].double(), self.values(weighting.features).double().cpu()], dim=1)
            for batch, weighting in zip(result.batches, result.weightings, strict=True)
        ]
        for rows in seen if self.group is None else interleaved(torch.stack(seen), self.group):
            indices, values = rows[:, 0].long(), rows[:, 1:]
            self.sums.index_add_(0, indices, values)
            self.visits.index_add_(0, indices, torch.ones(len(values), dtype=torch.float64))

    def means(self) -> dict[str, np.ndarray]:
        """Name -> mean [n]; NaN for an example that was not visited."""
        columns = (self.sums / self.visits[:, None]).numpy()
        return {name: columns[:, k] for k, name in enumerate(self.names)}

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far."""
        return {"sums": self.sums.clone(), "visits": self.visits.clone()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Continue from them."""
        self.sums, self.visits = state_dict["sums"].clone(), state_dict["visits"].clone()


def first_watched_step(recipe: Recipe, score_from: float) -> int:
    """The first step that counts for a mean over visits."""
    return round(score_from * recipe.steps) + 1


def require_visits(recipe: Recipe, score_from: float, examples: int) -> None:
    """Return if the steps that count visit every one of the `examples`.

    Raises:
        ValueError: they do not.
    """
    first = first_watched_step(recipe, score_from)
    visits = (recipe.steps - first + 1) * recipe.batch_size
    if visits < 2 * examples:  # two permutations: whatever the phase, one of them is whole
        raise ValueError(
            f"{recipe.steps} steps of {recipe.batch_size} after score_from {score_from} visit {visits} examples,"
            f" expected at least twice the {examples} of the training split"
        )


def run_loop(
    loop: BilevelLoop,
    recipe: Recipe,
    validation: Validation,
    *,
    device: torch.device,
    watched: Watched | None = None,
    log: Callable[[int, dict[str, float]], None] | None = None,
    progress: Callable[[int], None] | None = None,
    resume: dict[str, Any] | None = None,
    save: Callable[[int, dict[str, Any]], None] | None = None,
) -> None:
    """Take the steps of `recipe` with a loop of `make_loop`.

    Args:
        loop: fresh; its state becomes that of `resume`.
        recipe: of the base level.
        validation: measured on the loop's base module when numbers are logged.
        device: where that is.
        watched: sees every base step.
        log: called with the step and the numbers every `log_every` steps and at the end.
        progress: called with the step after each one.
        resume: state that `save` was given, to continue from.
        save: called with the step and the whole state every `checkpoint_every` steps, and when asked to stop.

    Several processes call this together, and each of the functions is called in all of them. They stop at the same
    step, whichever of them was asked to.

    Raises:
        Interrupted: several processes were asked to stop, and `save` was called. (One by itself is stopped by `save`.)
    """
    if watched is not None:
        loop.extra_state["weights"] = watched
    if validation.best is not None:
        loop.extra_state["best"] = validation.best
    loop.base.train()
    meta_loss: Tensor | None = None
    if resume is not None:
        loop.load_state_dict(resume["loop"])
        meta_loss = resume["meta_loss"]
    while loop.step_count < recipe.steps:
        result = loop.step()
        step = result.step
        if watched is not None:
            watched.watch(result)
        meta_loss = averaged(result.meta_loss, loop.group) if result.meta_loss is not None else meta_loss
        if log and (step % recipe.log_every == 0 or step == recipe.steps):
            numbers = {
                "train/loss": averaged(result.base_loss, loop.group).item(),
                **validation.numbers(loop.base, step, device),
                "learning_rate": loop.base_optimizer.param_groups[0]["lr"],
            }
            if meta_loss is not None:
                numbers["meta/loss"] = meta_loss.item()
            log(step, numbers)
        if progress:
            progress(step)
        if save and step < recipe.steps:
            _save_if_due(loop, recipe, meta_loss, save)


def _save_if_due(
    loop: BilevelLoop, recipe: Recipe, meta_loss: Tensor | None, save: Callable[[int, dict[str, Any]], None]
) -> None:
    step, stop = loop.step_count, interruption.requested()
    if loop.group is not None:  # the signal comes to one process earlier than to another
        stop = anybody(stop, loop.group)
    if stop or step % recipe.checkpoint_every == 0:
        save(step, {"loop": loop.state_dict(), "meta_loss": meta_loss})
    if stop and loop.group is not None:
        raise interruption.Interrupted(f"step {step}: all processes were asked to stop")


def meta_cost(recipe: Recipe, meta: MetaRecipe, *, teacher: bool, parameters: int) -> Cost:
    """Forwards and backwards of the base model (the meta network is not worth counting).

    A base step: forward and backward of the batch, and a `teacher`'s forward. A meta step: forward and backward of the
    meta batch, and `base_passes` of the base batch. Logging is not counted, as it is not for other trainings.
    `parameters` is the number of θ's values.
    """
    steps, batch = recipe.steps, recipe.batch_size
    meta_steps = steps // meta.unroll_steps
    cost = Cost()
    cost.add(forward=steps * batch, backward=steps * batch)
    if teacher:
        cost.add(forward=steps * batch)
    cost.add(forward=meta_steps * meta.batch_size, backward=meta_steps * meta.batch_size)
    forwards, backwards = base_passes(meta, parameters)
    cost.add(forward=meta_steps * forwards * batch, backward=meta_steps * backwards * batch)
    return cost


def base_passes(meta: MetaRecipe, parameters: int) -> tuple[int, int]:
    """Forwards and backwards of the base batch in one meta step of a weighting program.

    | method | forwards | backwards |
    |---|---|---|
    | difference: central; one-sided; exact (a pass of tangents costs what a backward does) | 2; 1; 1 | 0; 0; 1 |
    | sama, sama_na | those of the difference | |
    | darts, with a virtual step | 1 more | 1 more |
    | neumann, cg: n Hessian products at 3 backwards, a mixed one at 1 | 1 | 1 + 3n + 1 |
    | exact: a Hessian product a base parameter | 1 | 1 + 3n + 1 |
    | itd, K steps: all but the last are passed back through as by a Hessian product | K | K + 3(K−1) + 1 |

    A test compares with torch's FlopCounterMode (`benchmarks/flops.py`).
    """

    def knob(name: str) -> Any:
        return meta.options.given().get(name, knobs_of(meta.method)[name].default)

    if meta.method == "itd":
        return knob("inner_steps"), knob("inner_steps") + 3 * (knob("inner_steps") - 1) + 1
    if meta.method in ("neumann", "cg", "exact"):
        return 1, 1 + 3 * (parameters if meta.method == "exact" else knob("iterations")) + 1
    forwards, backwards = {"central": (2, 0), "one_sided": (1, 0), "exact": (1, 1)}[knob("difference")]
    virtual = int(meta.method == "darts")
    return forwards + virtual, backwards + virtual
