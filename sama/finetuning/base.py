"""What a method of finetuning is given and gives back, and phases of training that can be interrupted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sama.meta_training import MetaRecipe
from sama.networks.texts import TextClassifier
from sama.texts import MaskedTexts, TextExamples
from sama.training import Cost, Objective, Recipe, Validation, classification, train


class SelfTraining(Protocol):
    """Knobs of self-training; `sama.config.SelfTrainingConfig` is one."""

    @property
    def start(self) -> float: ...  # noqa: D102
    @property
    def rounds(self) -> int: ...  # noqa: D102
    @property
    def threshold(self) -> float: ...  # noqa: D102
    @property
    def smoothness(self) -> float: ...  # noqa: D102
    @property
    def contrast(self) -> float: ...  # noqa: D102
    @property
    def margin(self) -> float: ...  # noqa: D102


class Settings(Protocol):
    """What is special to one method; `sama.config.FinetuningConfig` is one."""

    @property
    def clean_share(self) -> float: ...  # noqa: D102
    @property
    def self_training(self) -> SelfTraining: ...  # noqa: D102
    @property
    def pretraining_steps(self) -> int: ...  # noqa: D102
    @property
    def auxiliary_weight(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Outcome:
    """What a method cost, and the means that it watched of each training text, by name: [n] or [n, classes]."""

    cost: Cost
    watched: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Context:
    """What a method works with.

    Attributes:
        model: trained in place; at the end it has the weights that are judged.
        training: the training texts with the labels that the method reads.
        meta_set: texts of the meta level, with theirs.
        validation: what models are chosen on.
        masked: texts -> the same for masked language modelling.
        recipe: number of steps -> the recipe with as many (its warm-up in proportion); `steps`: as configured.
        meta: the meta level's recipe; `method` is of its hypergradient.
        hidden_size, normalize: of the meta networks.
        settings: what is special to one method.
        score_from: an example's weight is the mean over the steps after this fraction of them.
        phases: what trains, logs and checkpoints.
    """

    model: TextClassifier
    classes: int
    training: TextExamples
    meta_set: TextExamples
    validation: Validation
    masked: Callable[[TextExamples], MaskedTexts]
    recipe: Callable[[int], Recipe]
    steps: int
    meta: MetaRecipe
    hidden_size: int
    normalize: bool
    settings: Settings
    score_from: float
    seed: int
    device: torch.device
    phases: "Phases"


@dataclass(frozen=True)
class Method:
    """A method of the registry.

    Attributes:
        run: trains the context's model.
        reads: the labels of its training texts: those of the configured aggregation ("weak"), of one by name, or the
            meta set alone ("meta").
        needs_meta: it needs a meta set. trusts_meta: it trains on the labels of that as on clean ones. watches: it
            gives each training text a weight; corrects: a label too. masked_head: it needs a masked-language-model
            head.
    """

    run: Callable[[Context], Outcome]
    reads: str
    needs_meta: bool = False
    trusts_meta: bool = False
    watches: bool = False
    corrects: bool = False
    masked_head: bool = False


Log = Callable[[int, dict[str, float]], None]
Save = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Phase:
    """What a training of one phase is given.

    Attributes:
        carried: tensors that were computed before its first step.
        hooks: `log`, `progress`, `resume` and `save` of `train` and `run_loop`.
    """

    carried: dict[str, Tensor]
    hooks: dict[str, Any]


class Phases:
    """Trainings of one model one after another, with one log, one checkpoint and one best.

    At the end of a phase that is validated, the model has its best weights so far, if the best are kept.

    Args:
        model: what is trained.
        validation: its `best` is part of the checkpoint.
        log, progress: called with the step over all phases.
        save: called with that step and the whole state.
        resume: state that `save` was given.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        validation: Validation,
        *,
        log: Log,
        progress: Callable[[int], None],
        save: Save,
        resume: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.validation = model, validation
        self._log, self._progress, self._save = log, progress, save
        self._resume = resume
        self._index = self._steps = 0  # of the phase that comes next: its number, and the steps before it
        if resume is not None and resume["state"] is None:  # between two phases
            model.load_state_dict(resume["model"])
            if validation.best is not None:
                validation.best.load_state_dict(resume["best"])

    def run(
        self,
        steps: int,
        body: Callable[[Phase], Any],
        *,
        carry: Callable[[], dict[str, Tensor]] = dict,
        validated: bool = True,
    ) -> None:
        """Run the next phase, or skip it if an earlier run has done it.

        Args:
            steps: of the phase.
            body: trains the model.
            carry: what is computed before the first step, and kept in the checkpoint.
            validated: `body` measures the model on the validation set.
        """
        index, before = self._index, self._steps
        self._index, self._steps = index + 1, before + steps
        if self._resume is not None and index < self._resume["phase"]:
            return
        inside = self._resume if self._resume is not None and index == self._resume["phase"] else {}
        state, best = inside.get("state"), self.validation.best
        if index and not inside:
            kept = None if best is None else best.state_dict()
            self._save(before, {"phase": index, "state": None, "model": self.model.state_dict(), "best": kept})
        carried = carry() if state is None else inside["carried"]

        def save(step: int, state: dict[str, Any]) -> None:
            self._save(before + step, {"phase": index, "state": state, "carried": carried})

        hooks = {
            "log": lambda step, numbers: self._log(before + step, numbers),
            "progress": lambda step: self._progress(before + step),
            "resume": state,
            "save": save,
        }
        body(Phase(carried, hooks))
        if validated and best is not None:
            self.model.load_state_dict(best.weights)

    def train(
        self,
        context: Context,
        examples: Any,
        recipe: Recipe,
        *,
        objective: Objective = classification,
        validated: bool = True,
    ) -> Cost:
        """A phase of ordinary training; the cost is that of all its steps."""
        validation = self.validation if validated else None

        def body(phase: Phase) -> None:
            train(
                context.model,
                examples,
                recipe,
                seed=context.seed,
                device=context.device,
                validation=validation,
                objective=objective,
                **phase.hooks,
            )

        self.run(recipe.steps, body, validated=validated)
        return cost_of(recipe)


def cost_of(recipe: Recipe) -> Cost:
    """A forward and a backward pass of every example of every batch."""
    seen = recipe.steps * recipe.batch_size
    return Cost(forward_examples=seen, backward_examples=seen)


def together(*costs: Cost) -> Cost:
    """Their sum."""
    total = Cost()
    for cost in costs:
        total.add(cost.forward_examples, cost.backward_examples)
    return total
