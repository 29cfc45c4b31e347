"""The ordinary supervised loop that retraining, baselines and the models behind scores share."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.checkpoint import due, random_state, set_random_state
from sama.bilevel.finite import require_finite
from sama.bilevel.precision import Precision


class OptimizerRecipe(Protocol):
    """An optimizer and its knobs; `sama.config.OptimizerConfig` is one."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def momentum(self) -> float: ...  # noqa: D102
    @property
    def nesterov(self) -> bool: ...  # noqa: D102
    @property
    def betas(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def epsilon(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102


class Recipe(Protocol):
    """A training recipe; `sama.config.TrainingConfig` is one."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def accumulate(self) -> int: ...  # noqa: D102
    @property
    def clip_norm(self) -> float | None: ...  # noqa: D102
    @property
    def precision(self) -> Literal["float32", "bf16", "fp16"]: ...  # noqa: D102
    @property
    def compile(self) -> bool: ...  # noqa: D102
    @property
    def optimizer(self) -> OptimizerRecipe: ...  # noqa: D102
    @property
    def schedule(self) -> str: ...  # noqa: D102
    @property
    def milestones(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def decay_factor(self) -> float: ...  # noqa: D102
    @property
    def warmup_steps(self) -> int: ...  # noqa: D102
    @property
    def augment(self) -> Any: ...  # noqa: D102
    @property
    def log_every(self) -> int: ...  # noqa: D102
    @property
    def checkpoint_every(self) -> int: ...  # noqa: D102


@dataclass
class Cost:
    """Examples that went forward and backward through the base model; a forward is 1 unit, a backward 2."""

    forward_examples: int = 0
    backward_examples: int = 0

    @property
    def units(self) -> int:
        """Cost in forwards of one example; a training step on n examples is 3n."""
        return self.forward_examples + 2 * self.backward_examples

    def add(self, forward: int = 0, backward: int = 0) -> None:
        """Count."""
        self.forward_examples += forward
        self.backward_examples += backward

    def as_dict(self) -> dict[str, int]:
        """For a summary file."""
        return {"forward_examples": self.forward_examples, "backward_examples": self.backward_examples}


class Examples(Protocol):
    """What is trained on: `sama.images.ImageExamples` or `sama.texts.TextExamples`."""

    @property
    def labels(self) -> Tensor:
        """Classes int64 [n], or class probabilities [n, classes]."""
        ...

    @property
    def ahead(self) -> int:
        """Batches that are begun before their turn."""
        ...

    def __len__(self) -> int: ...

    def order(self, batch_size: int) -> Callable[[Tensor, int], Tensor] | None:
        """How `ShuffledBatches` is to order each permutation; None: as it is drawn."""
        ...

    def begin(
        self, indices: Tensor, device: torch.device, recipe: Any = None, generator: torch.Generator | None = None
    ) -> Callable[[], Any]:
        """Begin to read a batch, randomly changed by `recipe` with draws from `generator`; what comes back ends it."""
        ...

    def batches(
        self, batch_size: int, device: torch.device, *, rank: int = 0, world_size: int = 1, skip: int = 0
    ) -> Iterator[tuple[Tensor, Any]]:
        """(indices, inputs) of all examples, each once."""
        ...


def setup_torch(threads: int, device: str) -> torch.device:
    """Fix the thread count, ask for deterministic operators, and choose the device (`auto`: a GPU if there is one).

    Raises:
        ValueError: `cuda` was asked for and there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("runtime.device is cuda, but torch finds no GPU: use auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def make_optimizer(recipe: OptimizerRecipe, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """The recipe's optimizer.

    Raises:
        ValueError: an unknown name.
    """
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.name == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay, nesterov=nesterov, fused=True)
    if recipe.name == "adam":
        return torch.optim.Adam(parameters, rate, recipe.betas, recipe.epsilon, weight_decay=decay, fused=True)
    if recipe.name == "adamw":
        return torch.optim.AdamW(parameters, rate, recipe.betas, recipe.epsilon, weight_decay=decay, fused=True)
    raise ValueError(f"unknown optimizer {recipe.name!r}: expected sgd, adam or adamw")


def make_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then cosine or linear to zero, constant, or times `decay_factor` at each of the `milestones`.

    With milestones m_i of T steps, step t (from 0) has the rate times decay_factor^|{i: t ≥ round(m_i T)}|; a warm-up
    counts among the T steps, and the way to zero begins where it ends.
    """
    decays = [round(milestone * recipe.steps) for milestone in recipe.milestones]

    def factor(step: int) -> float:
        if step < recipe.warmup_steps:
            return (step + 1) / recipe.warmup_steps
        if recipe.schedule == "constant":
            return 1.0
        if recipe.schedule == "step":
            return recipe.decay_factor ** sum(step >= at for at in decays)
        progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
        return 1 - progress if recipe.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


@torch.no_grad()
def predict(model: nn.Module, examples: Examples, device: torch.device, batch_size: int = 512) -> Tensor:
    """Logits [n, classes] on the CPU, in eval mode; the model's mode is put back."""
    was_training = model.training
    model.eval()
    order, logits = [], []
    for indices, inputs in examples.batches(batch_size, device):
        order.append(indices)
        logits.append(model(inputs).float().cpu())
    model.train(was_training)
    found = torch.cat(logits)
    return torch.empty_like(found).index_copy_(0, torch.cat(order), found)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of the examples whose largest logit [n, classes] is the label's."""
    return int((logits.argmax(dim=-1) == labels).sum()) / len(labels)


class Best:
    """The weights that a model had when its validation measure was highest; the first of equals."""

    def __init__(self) -> None:
        self.value, self.step = -math.inf, 0
        self.weights: dict[str, Tensor] = {}

    def offer(self, value: float, step: int, model: nn.Module) -> None:
        """Keep the weights of `model` if they are better than those before."""
        if value > self.value:
            self.value, self.step = value, step
            self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"value": self.value, "step": self.step, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from it."""
        self.value, self.step, self.weights = state_dict["value"], state_dict["step"], state_dict["weights"]


@dataclass
class Validation:
    """What a model is measured on as it trains.

    Attributes:
        examples: held out, with labels int64.
        measure: (logits [n, classes], labels [n]) -> a number, higher = better; `name` is what it is called.
        best: keeps the best weights; None: nothing is kept.
    """

    examples: Examples
    measure: Callable[[Tensor, Tensor], float] = accuracy
    name: str = "accuracy"
    best: Best | None = None

    def numbers(self, model: nn.Module, step: int, device: torch.device) -> dict[str, float]:
        """The measure by its name in metrics.jsonl."""
        value = self.measure(predict(model, self.examples, device), self.examples.labels)
        if self.best is not None:
            self.best.offer(value, step, model)
        return {f"validation/{self.name}": value}


Objective = Callable[[Callable[..., Tensor], Any, Tensor], tuple[Tensor, Tensor]]
"""(model, inputs, labels) -> (loss, outputs of the model)."""


def classification(forward: Callable[..., Tensor], inputs: Any, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the batch, and its logits; labels are classes, or class probabilities times a weight."""
    logits = forward(inputs)
    return cross_entropy(logits, labels), logits


def train(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    steps: int | None = None,
    validation: Validation | None = None,
    objective: Objective = classification,
    log: Callable[[int, dict[str, float]], None] | None = None,
    progress: Callable[[int], None] | None = None,
    resume: dict[str, Any] | None = None,
    save: Callable[[int, dict[str, Any]], None] | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Cost:
    """Train `model` in place on `examples` by `recipe`.

    Args:
        model: inputs -> logits, on `device`.
        examples: what to learn.
        recipe: optimizer, steps, schedule, augmentation.
        seed: of the order of the examples and of the augmentation; dropout draws from it too.
        device: where the model is.
        steps: instead of the recipe's number (the schedule still spans the recipe's).
        validation: its measure is logged, and its best weights kept.
        objective: the loss.
        log: called with the step and the numbers every `log_every` steps and at the end.
        progress: called with the step after each one.
        resume: state that `save` was given, to continue from.
        save: called with the step and the whole state every `checkpoint_every` steps, and when asked to stop.
        observe: called with the indices [batch] and the detached outputs [batch, classes] of every batch.

    Returns:
        What the training cost, validation not counted.

    Raises:
        FloatingPointError: the loss is not finite; names the step.
    """
    last_step = recipe.steps if steps is None else steps
    optimizer = make_optimizer(recipe.optimizer, model.parameters())
    scheduler = make_scheduler(recipe, optimizer)

    def make(indices: Tensor, generator: torch.Generator) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
        inputs = examples.begin(indices, device, recipe.augment, generator)
        return lambda: (indices, inputs(), examples.labels[indices].to(device))

    micro_batch = recipe.batch_size // recipe.accumulate
    order = examples.order(micro_batch)
    batches = ShuffledBatches(len(examples), micro_batch, seed, make, ahead=examples.ahead, order=order)
    precision = Precision(recipe.precision, device.type)
    forward = torch.compile(model) if recipe.compile else model
    torch.manual_seed(seed)
    step = 0
    if resume is not None:
        step = resume["step"]
        model.load_state_dict(resume["model"])
        optimizer.load_state_dict(resume["optimizer"])
        scheduler.load_state_dict(resume["scheduler"])
        batches.load_state_dict(resume["batches"])
        precision.load_state_dict(resume["precision"])
        set_random_state(resume["random"])
        if validation is not None and validation.best is not None:
            validation.best.load_state_dict(resume["best"])
    model.train()
    while step < last_step:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for _ in range(recipe.accumulate):
            indices, inputs, labels = next(batches)
            with precision.autocast():
                loss, outputs = objective(forward, inputs, labels)
            if observe:
                observe(indices, outputs.detach())
            require_finite(loss, "training loss", step + 1, {**_named(inputs), **dict(model.named_parameters())})
            precision.base_scaler.scale(loss / recipe.accumulate).backward()
            total += loss.detach() / recipe.accumulate
        precision.base_scaler.unscale_(optimizer)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        precision.apply(precision.base_scaler, optimizer)
        scheduler.step()
        step += 1
        if progress:
            progress(step)
        if log and (step % recipe.log_every == 0 or step == last_step):
            numbers = {"train/loss": total.item(), "learning_rate": scheduler.get_last_lr()[0]}
            if validation is not None:
                numbers |= validation.numbers(model, step, device)
            log(step, numbers)
        if save and due(step, recipe.checkpoint_every) and step < last_step:
            state = _state(step, model, optimizer, scheduler, batches, precision)
            if validation is not None and validation.best is not None:
                state["best"] = validation.best.state_dict()
            save(step, state)
    examples_seen = last_step * recipe.batch_size
    return Cost(forward_examples=examples_seen, backward_examples=examples_seen)


def _named(inputs: Any, name: str = "inputs") -> dict[str, Tensor]:
    if not isinstance(inputs, Mapping):
        return {name: inputs}
    return {inner: tensor for key, value in inputs.items() for inner, tensor in _named(value, key).items()}


def _state(
    step: int, model: nn.Module, optimizer: Any, scheduler: Any, batches: ShuffledBatches, precision: Precision
) -> dict[str, Any]:
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "batches": batches.state_dict(),
        "precision": precision.state_dict(),
        "random": random_state(),
    }
