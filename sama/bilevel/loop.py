"""The bilevel loop: `unroll_steps` base steps, then a meta step along the hypergradient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from sama.adaptation import Memory, adapt, remember
from sama.bilevel.checkpoint import random_state, set_random_state
from sama.bilevel.distributed import Mean, copy_from_first, gathered
from sama.bilevel.finite import require_finite
from sama.bilevel.full_state import copied, full_state, load_full_state
from sama.bilevel.mixed import mixed, unscaled_meta_loss
from sama.bilevel.precision import Name, Precision
from sama.bilevel.sharded import ShardedProgram, is_sharded, sharded
from sama.hypergradient import DifferentiableUpdate, Evaluated, MicroBatches
from sama.hypergradient import method as hypergradient_method
from sama.hypergradient.evaluation import RandomState, detached, norm, norm_of
from sama.hypergradient.evaluation import gradients as gradients_of
from sama.hypergradient.program import Batch, Program, WeightingProgram, weighted_mean


class Batches(Protocol):
    """An endless stream of batches that can be continued where it was interrupted.

    Its state is the same in every process, if another number of processes is to go on with it (`ShuffledBatches`).
    """

    def __next__(self) -> Any:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        ...


class Stateful(Protocol):
    """Schedulers, EMA teachers: whatever else has to be in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Take the state over."""
        ...


@dataclass(frozen=True)
class Weighting:
    """What a weighting program did in a base step: `weights`, `losses` [batch, …], `features` [batch, k], no graph."""

    weights: Tensor
    losses: Tensor
    features: Tensor


@dataclass(frozen=True)
class StepResult:
    """One base step of this process.

    `batches`: its micro-batches. `base_loss`: their mean loss before the update; `meta_loss`: if a meta step followed
    (scalars on the device, over this process's examples). `weightings`: one a micro-batch for a weighting program.
    """

    step: int
    batches: tuple[Batch, ...]
    base_loss: Tensor
    meta_loss: Tensor | None
    weightings: tuple[Weighting, ...]


@dataclass(frozen=True)
class _BasePass:
    """Micro-batches forward and backward: what a base step does before its update."""

    batch: MicroBatches
    loss: Tensor
    gradients: dict[str, Tensor]
    weightings: tuple[Weighting, ...]
    evaluated: MicroBatches | None


class BilevelLoop:
    """Trains base parameters θ (a module's) and meta parameters λ (another's) on a program.

    A base step follows the mean gradient over `accumulate` micro-batches, and over the processes of `group`; every
    `unroll_steps` of them a meta step follows the hypergradient, of the last base step's micro-batches and
    `meta_accumulate` meta micro-batches. Whatever a program computes over a batch (the mean that weights are divided
    by, BatchNorm's statistics) it computes over one micro-batch.

    Several processes: each takes its own hypergradient from its own micro-batches (`v` is not reduced, the adaptation
    is that of the common step), and their mean is the meta gradient: one reduction of |λ| values a meta step,
    overlapped with the backward pass that yields them, and one of |θ| values (and one a parameter, which tells whether
    anybody used it) a base step, overlapped likewise. θ, λ,
    the buffers of the base module and the modules in `extra_state` start as the first process's; the buffers become so
    again after each base step. An error in one process alone leaves the others waiting for it: end them all.

    A base module that `torch.distributed.fsdp.fully_shard` was called on: gradients by θ arrive reduced, so `v` is that
    of all processes' examples; |θ| values are reduced for the meta loss as well (`sama.bilevel.sharded`).

    Below float32, forwards run in bf16 or fp16 but those that a difference is taken of (`sama.bilevel.mixed`). An
    fp16 step whose gradients overflow is skipped, a base step together with the meta step that would follow it.

    Args:
        program: the two losses; if it has `prepare(batch)`, that is called once a base micro-batch (teacher forwards).
        base: module of θ. meta: module of λ.
        base_optimizer, meta_optimizer: hold these parameters.
        batches, meta_batches: endless streams of micro-batches, in each process its own.
        method: a name of `sama.hypergradient.METHODS`.
        alpha: size of the difference, for the methods that take one.
        options: further knobs of the method, by name.
        unroll_steps: base steps before a meta step.
        accumulate, meta_accumulate: micro-batches a base step and a meta step.
        clip_norm, meta_clip_norm: scale a gradient of a larger 2-norm down to it; the adaptation is told the factor.
        precision: float32, bf16 or fp16 of the forwards.
        schedulers: stepped once a base step.
        after_base_step: called after each base step (an EMA teacher's update).
        extra_state: name -> object with state that belongs into a checkpoint (the EMA teacher); it is the same in every
            process.
        group: the processes that train together; None: this one alone.

    Raises:
        ValueError: a number is out of range, a knob is not the method's, an optimizer lacks a parameter, a module has
            none or shares one with the other, a stream is no iterator, or θ is in half precision.
    """

    def __init__(
        self,
        program: Program,
        base: torch.nn.Module,
        meta: torch.nn.Module,
        base_optimizer: torch.optim.Optimizer,
        meta_optimizer: torch.optim.Optimizer,
        batches: Batches,
        meta_batches: Batches,
        *,
        method: str,
        alpha: float,
        unroll_steps: int,
        options: Mapping[str, Any] | None = None,
        accumulate: int = 1,
        meta_accumulate: int = 1,
        clip_norm: float | None = None,
        meta_clip_norm: float | None = None,
        precision: Name = "float32",
        schedulers: Sequence[Stateful] = (),
        after_base_step: Callable[[], None] | None = None,
        extra_state: Mapping[str, Stateful] | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        for name, number in (
            ("unroll_steps", unroll_steps),
            ("accumulate", accumulate),
            ("meta_accumulate", meta_accumulate),
        ):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"expected {name} to be an integer >= 1, got {number}")
        for name, value in (("clip_norm", clip_norm), ("meta_clip_norm", meta_clip_norm)):
            if value is not None and not value > 0:
                raise ValueError(f"expected {name} > 0, got {value}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"expected a finite alpha > 0, got {alpha}")
        if "alpha" in (options or {}):
            raise ValueError("alpha is an argument of its own: expected no alpha among the options")
        for name, stream in (("batches", batches), ("meta_batches", meta_batches)):
            if not hasattr(stream, "__next__"):
                raise ValueError(
                    f"{name}: expected an endless iterator like ShuffledBatches, got {type(stream).__name__}"
                )
        self.base, self.meta = base, meta
        self.base_optimizer, self.meta_optimizer = base_optimizer, meta_optimizer
        self.batches, self.meta_batches = batches, meta_batches
        self.method, self.alpha = hypergradient_method(method, **(options or {})), alpha
        self.unroll_steps, self.accumulate, self.meta_accumulate = unroll_steps, accumulate, meta_accumulate
        self.clip_norm, self.meta_clip_norm = clip_norm, meta_clip_norm
        self._adapts = self.method.takes("adapt")  # else nothing is to be remembered, and any optimizer will do
        self.schedulers, self.after_base_step = schedulers, after_base_step
        self.extra_state = dict(extra_state or {})
        self.group = group
        self.step_count = 0
        self._lambda = _trainable(meta, "meta", meta_optimizer)
        self.program, self._theta = program, _trainable(base, "base", base_optimizer)
        held = {id(p): name for name, p in self._theta.items()}
        for name, p in self._lambda.items():
            if id(p) in held:
                raise ValueError(
                    f"meta parameter {name} is base parameter {held[id(p)]} too: expected it in one module"
                )
        for name, p in self._theta.items():
            if p.dtype in (torch.float16, torch.bfloat16):
                raise ValueError(
                    f"base parameter {name} is {p.dtype}: expected float32, and precision= for the forwards"
                )
        self.precision = Precision(precision, next(iter(self._theta.values())).device.type)
        self._base_mean = self._meta_mean = None
        if is_sharded(base):
            if group is None:
                raise ValueError("a sharded base module needs the group of its processes")
            if self.method.takes("update") or precision == "fp16":
                refused = f"method {method}" if self.method.takes("update") else "precision fp16"
                raise ValueError(f"a sharded base module cannot be trained with {refused}")
            self.program = sharded(program, base)
            self._theta = detached(self.program.theta(), requires_grad=True)
            self._meta_mean = Mean(self._lambda, group)
        elif group is not None:
            self._base_mean, self._meta_mean = Mean(self._theta, group, partial=True), Mean(self._lambda, group)
        if group is not None:
            modules = [base, meta, *(item for item in self.extra_state.values() if isinstance(item, torch.nn.Module))]
            tensors = [t for module in modules for t in (*module.parameters(), *module.buffers())]
            copy_from_first([t for t in tensors if not isinstance(t, DTensor)], group)
        self._update = DifferentiableUpdate(base_optimizer, self._theta) if self.method.takes("update") else None

    def step(self) -> StepResult:
        """One base step, and a meta step when `unroll_steps` of them are done.

        Raises:
            FloatingPointError: the base or the meta loss or the hypergradient is not finite; names the step.
            ValueError: a loss is no scalar, or a stream ended.
        """
        try:
            return self._step()
        except BaseException:
            for mean in (self._base_mean, self._meta_mean):
                if mean is not None:
                    mean.begin()
            raise

    def _step(self) -> StepResult:
        meta_step = (self.step_count + 1) % self.unroll_steps == 0
        self.base_optimizer.zero_grad(set_to_none=True)  # what somebody else, or a step that failed, left there
        for p in self._theta.values():
            p.grad = None
        early = meta_step and self.method.before_update  # such a method needs θ from before the update
        done = self._base_pass(watch=early and self.precision.same_losses)
        point = {name: p.detach().clone() for name, p in self._theta.items()} if early else self._theta
        factor: Tensor | float = 1.0
        if self.clip_norm is not None:
            factor = _scale_down(done.gradients, norm_of(self.program, done.gradients), self.clip_norm)
        before = remember(self.base_optimizer) if meta_step and self._adapts else None
        taken = self.precision.apply(self.precision.base_scaler, self.base_optimizer)
        self.base_optimizer.zero_grad(set_to_none=True)
        meta_loss = self._meta_step(done, factor, before, point) if meta_step and taken else None
        for scheduler in self.schedulers:
            scheduler.step()  # type: ignore[attr-defined]
        if self.group is not None:
            copy_from_first(self.base.buffers(), self.group)
        if self.after_base_step is not None:
            self.after_base_step()
        self.step_count += 1
        return StepResult(self.step_count, tuple(done.batch), done.loss, meta_loss, done.weightings)

    def _base_pass(self, *, watch: bool) -> _BasePass:
        """Forward and backward of the micro-batches into `.grad`; `watch`: keep what a one-sided difference can use."""
        prepare = getattr(self.program, "prepare", lambda batch: batch)
        batches, losses, weightings, evaluated = [], [], [], []
        for k in range(self.accumulate):
            batch = self._next(self.batches, "base")
            with self.precision.autocast():
                batch = prepare(batch)
            draws = RandomState() if watch else None
            lam = detached(self._lambda, requires_grad=watch)
            loss, weighting = self._base_loss(lam, batch)
            require_finite(loss, "base loss", self.step_count + 1, self._named())
            if draws is not None:
                if weighting is None:
                    evaluated.append(Evaluated(draws, of_meta=gradients_of(loss, lam, retain_graph=True)))
                else:
                    evaluated.append(Evaluated(draws, losses=weighting.losses, features=weighting.features))
            with self._reducing() if k == self.accumulate - 1 else nullcontext():
                self.precision.base_scaler.scale(loss / self.accumulate).backward()
            batches.append(batch)
            losses.append(loss.detach())
            if weighting is not None:
                weightings.append(weighting)
        gradients = {name: p.grad for name, p in self._theta.items() if p.grad is not None}
        if isinstance(self.program, ShardedProgram):
            for name, value in self.program.as_shards(gradients).items():
                self.program.parameters[name].grad = value
                self._theta[name].grad = None
        self.precision.base_scaler.unscale_(self.base_optimizer)
        known = MicroBatches(evaluated) if watch else None
        return _BasePass(MicroBatches(batches), torch.stack(losses).mean(), gradients, tuple(weightings), known)

    @contextmanager
    def _reducing(self) -> Iterator[None]:
        """A backward pass whose gradients are averaged over the processes while it runs."""
        if self._base_mean is None:
            yield
            return
        mean, hooks = self._base_mean, []
        for name, parameter in self._theta.items():

            def put(p: Tensor, name: str = name) -> None:
                if p.grad is not None:
                    mean.put(name, p.grad)

            hooks.append(parameter.register_post_accumulate_grad_hook(put))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        for name, parameter in self._theta.items():
            if parameter.grad is not None and name not in mean:  # an earlier micro-batch used it, the last did not
                mean.put(name, parameter.grad)
        for name, value in mean.take().items():
            self._theta[name].grad = value

    def _next(self, stream: Batches, level: str) -> Batch:
        try:
            return next(stream)
        except StopIteration:
            raise ValueError(
                f"the {level} batches ended in step {self.step_count + 1}: expected an endless stream"
            ) from None

    def _named(self) -> dict[str, Tensor]:
        """All parameters, for messages."""
        theta = {f"base parameter {name}": p for name, p in self._theta.items()}
        return theta | {f"meta parameter {name}": p for name, p in self._lambda.items()}

    def _base_loss(self, lam: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Weighting | None]:
        """The base loss; a weighting program's is put together here, so that its weights can be watched."""
        if not isinstance(self.program, WeightingProgram):
            with self.precision.autocast():
                return self.program.base_loss(self._theta, lam, batch), None
        with self.precision.autocast():
            losses, features = self.program.example_losses(self._theta, batch)
        with torch.no_grad(), self.precision.full():
            weights = self.program.weights(lam, features)
        return weighted_mean(weights, losses), Weighting(weights, losses.detach(), features.detach())

    def _meta_step(
        self, done: _BasePass, factor: Tensor | float, before: Memory | None, point: Mapping[str, Tensor]
    ) -> Tensor:
        def of_optimizer(vector: dict[str, Tensor]) -> dict[str, Tensor]:
            options = {"before": before, "clip_factor": factor, "consume": True}
            if isinstance(self.program, ShardedProgram):
                adapted = self.program.adapt(self.base_optimizer, done.gradients, vector, **options)
            else:
                adapted = adapt(self.base_optimizer, self._theta, done.gradients, vector, **options)
            done.gradients.clear()  # of the size of θ; nobody needs them any more
            return adapted

        if not self._adapts:
            done.gradients.clear()
        result = self.method(
            mixed(self.program, self.precision),
            point,
            self._lambda,
            done.batch,
            MicroBatches([self._next(self.meta_batches, "meta") for _ in range(self.meta_accumulate)]),
            adapt=of_optimizer,
            update=self._update,
            evaluated=done.evaluated,
            arrived=None if self._meta_mean is None else self._meta_mean.put,
            alpha=self.alpha,
        )
        meta_loss = unscaled_meta_loss(result, self.precision)
        require_finite(meta_loss, "meta loss", self.step_count + 1, self._named())
        gradient = result.gradient
        if self._meta_mean is not None:
            if not self.method.takes("arrived"):
                for name, value in gradient.items():
                    self._meta_mean.put(name, value)
            gradient = self._meta_mean.take()
        if not self.precision.meta_scaler.is_enabled():  # else the scaler finds it, and skips the step
            parts = {f"hypergradient of {name}": value for name, value in gradient.items()}
            require_finite(norm(gradient), "norm of the hypergradient", self.step_count + 1, parts)
        for name, parameter in self._lambda.items():
            parameter.grad = gradient[name]
        self.precision.meta_scaler.unscale_(self.meta_optimizer)
        if self.meta_clip_norm is not None:
            _scale_down(gradient, norm(gradient), self.meta_clip_norm)
        taken = self.precision.apply(self.precision.meta_scaler, self.meta_optimizer)
        self.meta_optimizer.zero_grad(set_to_none=True)
        if result.displacement is not None and taken:
            self._displace(result.displacement)
        return meta_loss

    @torch.no_grad()
    def _displace(self, displacement: Mapping[str, Tensor]) -> None:
        """Move θ; by the mean over the processes, which each have their own, at the cost of another |θ| values."""
        if self._base_mean is not None:
            for name, value in displacement.items():
                self._base_mean.put(name, value)
            displacement = self._base_mean.take()
        for name, value in displacement.items():
            self._theta[name].add_(value)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; call it in every process, save that of the first for all."""
        own = {
            "batches": self.batches.state_dict(),
            "meta_batches": self.meta_batches.state_dict(),
            "random": random_state(),
        }
        return {
            "step_count": self.step_count,
            "micro_batches": self._micro_batches(),
            "base": full_state(self.base, self.base_optimizer),
            "meta": full_state(self.meta, self.meta_optimizer),
            "precision": self.precision.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "extra": {name: copied(item.state_dict()) for name, item in self.extra_state.items()},
            "processes": gathered(own, self.group),
        }

    def _micro_batches(self) -> dict[str, int]:
        processes = 1 if self.group is None else self.group.size()
        return {"accumulate": processes * self.accumulate, "meta_accumulate": processes * self.meta_accumulate}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken; with another number of processes, on the same micro-batches.

        Then the streams go on where they stood, the random draws are new ones, and the mean over the processes is the
        new number's.

        Raises:
            ValueError: this loop's steps are not made of as many micro-batches, over all processes; or the state is of
                another precision, or of other schedulers or extras. Nothing was loaded then.
        """
        world, rank = (1, 0) if self.group is None else (self.group.size(), self.group.rank())
        for name, now in self._micro_batches().items():
            if state["micro_batches"][name] != now:
                raise ValueError(
                    f"the checkpoint has {state['micro_batches'][name]} micro-batches a step, this run has {world} "
                    f"processes × {now // world}: set {name} so that their product is the same"
                )
        kinds = (sorted(self.extra_state), len(self.schedulers))
        if (sorted(state["extra"]), len(state["schedulers"])) != kinds:
            raise ValueError(
                f"the checkpoint has the extras {sorted(state['extra'])} and {len(state['schedulers'])} schedulers, "
                f"expected {kinds[0]} and {kinds[1]}: it belongs to another run"
            )
        self.precision.load_state_dict(state["precision"])
        self.step_count = state["step_count"]
        load_full_state(self.base, self.base_optimizer, state["base"])
        load_full_state(self.meta, self.meta_optimizer, state["meta"])
        for scheduler, value in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(value)
        for name, item in self.extra_state.items():
            item.load_state_dict(state["extra"][name])
        same = len(state["processes"]) == world
        own = state["processes"][rank if same else 0]
        self.batches.load_state_dict(own["batches"])
        self.meta_batches.load_state_dict(own["meta_batches"])
        set_random_state(own["random"])
        if not same:
            torch.manual_seed(int(torch.randint(2**62, ())) + rank)


def _trainable(module: torch.nn.Module, level: str, optimizer: torch.optim.Optimizer) -> dict[str, torch.nn.Parameter]:
    """Name -> parameter that requires a gradient."""
    found = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise ValueError(f"the {level} module has no parameter that requires a gradient")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, p in found.items():
        if id(p) not in held:
            raise ValueError(
                f"the {level} optimizer {type(optimizer).__name__} does not hold parameter {name}: "
                "expected one optimizer of all of them; freeze what is not to be trained"
            )
    return found


def _scale_down(gradients: Mapping[str, Tensor], length: Tensor, most: float) -> Tensor:
    """Scale the gradients of this 2-norm in place to at most that one; returns the factor, at most 1."""
    factor = (most / (length + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients.values()), factor)
    return factor
