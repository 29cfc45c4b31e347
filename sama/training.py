"""The ordinary supervised loop that retraining, baselines and the models behind scores share."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.checkpoint import random_state, set_random_state
from sama.bilevel.finite import require_finite
from sama.bilevel.precision import Precision


class Augmentation(Protocol):
    """Random changes of a training batch."""

    @property
    def crop_padding(self) -> int: ...  # noqa: D102
    @property
    def horizontal_flip(self) -> bool: ...  # noqa: D102
    @property
    def random_resized_crop(self) -> tuple[float, float] | None: ...  # noqa: D102


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
    def augment(self) -> Augmentation: ...  # noqa: D102
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


class StoredImages(Protocol):
    """Images that are decoded when they are read; `sama.data.encoded.EncodedImages` is one."""

    def __len__(self) -> int: ...

    def begin(self, rows: np.ndarray, crops: np.ndarray | None = None) -> Callable[[], np.ndarray]:
        """Begin to decode; the function that comes back waits, and gives uint8 [batch, channels, height, width]."""
        ...


CROP_RATIO = (3 / 4, 4 / 3)  # width : height of a random resized crop, as in torchvision


@dataclass(frozen=True)
class Examples:
    """Images uint8 [n, channels, height, width], held or stored, and labels int64 [n], with the pixel statistics."""

    images: Tensor | StoredImages
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    ahead = 2  # batches that are begun before their turn

    def __len__(self) -> int:
        return len(self.labels)

    def begin(
        self,
        indices: Tensor,
        device: torch.device,
        recipe: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> Callable[[], Tensor]:
        """Begin to read a batch, so that stored images are decoded while the device computes another one.

        Args:
            indices: of the examples, int64 [batch].
            device: where the batch goes.
            recipe: random changes; None: none.
            generator: what they are drawn from; nothing else may draw from it before the batch is finished.

        Returns:
            A function that waits for the images and gives normalised float32 inputs [batch, channels, height, width]
            on `device`, channels last in memory.

        Raises:
            ValueError: a random resized crop is asked for, but the images have been brought to one size already.
        """
        pixels = self._begin_pixels(indices, None if recipe is None else recipe.random_resized_crop, generator)

        def inputs() -> Tensor:
            batch = self._normalised(pixels(), device)
            return batch if recipe is None or generator is None else augment(batch, recipe, generator)

        return inputs

    def _begin_pixels(
        self, indices: Tensor, crop: tuple[float, float] | None, generator: torch.Generator | None
    ) -> Callable[[], Tensor]:
        images = self.images
        if isinstance(images, Tensor):
            if crop is not None:
                raise ValueError(
                    "a random resized crop is taken of stored images of any size: set data.storage to encoded"
                )
            return lambda: images[indices]
        crops = None if crop is None else _draw_crops(len(indices), crop, generator).numpy()
        decoded = images.begin(indices.numpy(), crops)
        return lambda: torch.from_numpy(decoded())

    def inputs(self, indices: Tensor, device: torch.device) -> Tensor:
        """The batch that `begin` begins, without random changes."""
        return self.begin(indices, device)()

    def batches(
        self, batch_size: int, device: torch.device, *, rank: int = 0, world_size: int = 1, skip: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices, inputs) of all examples in order, `batch_size` at a time, some batches begun early.

        With several processes, process r of R gets batches r, R + r, …: each example once, nothing is padded, and a
        batch is the same whoever gets it; the first `skip` of its batches are left out.
        """
        begun: deque[tuple[Tensor, Callable[[], Tensor]]] = deque()
        for chunk in torch.arange(len(self)).split(batch_size)[rank::world_size][skip:]:
            begun.append((chunk, self.begin(chunk, device)))
            if len(begun) > self.ahead:
                indices, finish = begun.popleft()
                yield indices, finish()
        for indices, finish in begun:
            yield indices, finish()

    def _normalised(self, pixels: Tensor, device: torch.device) -> Tensor:
        images = pixels.to(device, non_blocking=True).float().div_(255)
        images = images.contiguous(memory_format=torch.channels_last)
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=device).view(-1, 1, 1)
        return images.sub_(mean).div_(std)


def _draw_crops(count: int, area: tuple[float, float], generator: torch.Generator | None) -> Tensor:
    """(area, ratio, top, left) of random crops [count, 4]; area is a fraction of the image, places lie in [0, 1)."""
    drawn = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    low, high = math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])
    drawn[:, 0] = area[0] + (area[1] - area[0]) * drawn[:, 0]
    drawn[:, 1] = (low + (high - low) * drawn[:, 1]).exp()
    return drawn


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
        return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay, nesterov=nesterov)
    if recipe.name == "adam":
        return torch.optim.Adam(parameters, rate, recipe.betas, weight_decay=decay)
    if recipe.name == "adamw":
        return torch.optim.AdamW(parameters, rate, recipe.betas, weight_decay=decay)
    raise ValueError(f"unknown optimizer {recipe.name!r}: expected sgd, adam or adamw")


def make_scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then cosine to zero, constant, or multiplied by `decay_factor` at each of the `milestones`.

    With milestones m_i of T steps, step t (from 0) has the rate times decay_factor^|{i: t ≥ round(m_i T)}|; a warm-up
    counts among the T steps, and the cosine begins where it ends.
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
        return 0.5 * (1 + math.cos(math.pi * progress))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def augment(images: Tensor, recipe: Augmentation, generator: torch.Generator) -> Tensor:
    """Random crop and flip of each image of the batch [batch, channels, height, width]."""
    if recipe.crop_padding:
        padding = recipe.crop_padding
        height, width = images.shape[-2:]
        padded = pad(images, (padding,) * 4)
        tops = torch.randint(0, 2 * padding + 1, (len(images),), generator=generator).to(images.device)
        lefts = torch.randint(0, 2 * padding + 1, (len(images),), generator=generator).to(images.device)
        rows = tops[:, None, None] + torch.arange(height, device=images.device)[None, :, None]
        columns = lefts[:, None, None] + torch.arange(width, device=images.device)[None, None, :]
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[batch, rows, columns].permute(0, 3, 1, 2)
    if recipe.horizontal_flip:
        mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


@torch.no_grad()
def predict(model: nn.Module, examples: Examples, device: torch.device, batch_size: int = 512) -> Tensor:
    """Logits [n, classes] on the CPU, in eval mode; the model's mode is put back."""
    was_training = model.training
    model.eval()
    logits = [model(inputs).float().cpu() for _, inputs in examples.batches(batch_size, device)]
    model.train(was_training)
    return torch.cat(logits)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Fraction of the examples whose largest logit [n, classes] is the label's."""
    return int((logits.argmax(dim=-1) == labels).sum()) / len(labels)


def train(
    model: nn.Module,
    examples: Examples,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    steps: int | None = None,
    validation: Examples | None = None,
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
        validation: its accuracy is logged.
        log: called with the step and the numbers every `log_every` steps and at the end.
        progress: called with the step after each one.
        resume: state that `save` was given, to continue from.
        save: called with the step and the whole state every `checkpoint_every` steps.
        observe: called with the indices [batch] and the detached logits [batch, classes] of every batch.

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
    batches = ShuffledBatches(len(examples), micro_batch, seed, make, ahead=examples.ahead)
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
    model.train()
    while step < last_step:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for _ in range(recipe.accumulate):
            indices, inputs, labels = next(batches)
            with precision.autocast():
                logits = forward(inputs)
                loss = cross_entropy(logits, labels)
            if observe:
                observe(indices, logits.detach())
            require_finite(loss, "training loss", step + 1, {"inputs": inputs, **dict(model.named_parameters())})
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
                numbers["validation/accuracy"] = accuracy(predict(model, validation, device), validation.labels)
            log(step, numbers)
        if save and step % recipe.checkpoint_every == 0 and step < last_step:
            save(step, _state(step, model, optimizer, scheduler, batches, precision))
    examples_seen = last_step * recipe.batch_size
    return Cost(forward_examples=examples_seen, backward_examples=examples_seen)


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
