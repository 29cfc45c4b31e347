"""The bilevel loop: `unroll_steps` base steps, then a meta step along the hypergradient."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sama.adaptation import Memory, adapt, remember
from sama.bilevel.checkpoint import random_state, set_random_state
from sama.bilevel.finite import require_finite
from sama.hypergradient import DifferentiableUpdate, Evaluated
from sama.hypergradient import method as hypergradient_method
from sama.hypergradient.evaluation import RandomState
from sama.hypergradient.evaluation import gradients as gradients_of
from sama.hypergradient.program import Program, WeightingProgram


class Batches(Protocol):
    """An endless stream of batches that can be continued where it was interrupted."""

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
    """What a weighting program did in a base step: `weights` and `losses` [batch], `features` [batch, k], no graph."""

    weights: Tensor
    losses: Tensor
    features: Tensor


@dataclass(frozen=True)
class StepResult:
    """One base step: its batch, `base_loss` before it, `meta_loss` if a meta step followed (scalars on the device)."""

    step: int
    batch: Any
    base_loss: Tensor
    meta_loss: Tensor | None
    weighting: Weighting | None


class BilevelLoop:
    """Trains base parameters θ (a module's) and meta parameters λ (another's) on a program.

    Args:
        program: the two losses; if it has `prepare(batch)`, that is called once a base batch (teacher forwards).
        base: module of θ. meta: module of λ.
        base_optimizer, meta_optimizer: hold these parameters.
        batches, meta_batches: endless streams.
        method: a name of `sama.hypergradient.METHODS`.
        alpha: size of the difference, for the methods that take one.
        options: further knobs of the method, by name.
        unroll_steps: base steps before a meta step.
        schedulers: stepped once a base step.
        after_base_step: called after each base step (an EMA teacher's update).
        extra_state: name -> object with state that belongs into a checkpoint (the EMA teacher).
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
        schedulers: Sequence[Stateful] = (),
        after_base_step: Callable[[], None] | None = None,
        extra_state: Mapping[str, Stateful] | None = None,
    ) -> None:
        if unroll_steps < 1:
            raise ValueError(f"expected unroll_steps >= 1, got {unroll_steps}")
        self.program, self.base, self.meta = program, base, meta
        self.base_optimizer, self.meta_optimizer = base_optimizer, meta_optimizer
        self.batches, self.meta_batches = batches, meta_batches
        self.method, self.alpha = hypergradient_method(method, **(options or {})), alpha
        self.unroll_steps = unroll_steps
        self._adapts = self.method.takes("adapt")  # else nothing is to be remembered, and any optimizer will do
        self.schedulers, self.after_base_step = schedulers, after_base_step
        self.extra_state = dict(extra_state or {})
        self.step_count = 0
        self._theta = {name: p for name, p in base.named_parameters() if p.requires_grad}
        self._lambda = {name: p for name, p in meta.named_parameters() if p.requires_grad}
        self._update = DifferentiableUpdate(base_optimizer, self._theta) if self.method.takes("update") else None

    def step(self) -> StepResult:
        """One base step, and a meta step when `unroll_steps` of them are done.

        Raises:
            FloatingPointError: the base or the meta loss is not finite; names the step and the loss.
        """
        batch = next(self.batches)
        prepare = getattr(self.program, "prepare", None)
        if prepare is not None:
            batch = prepare(batch)
        meta_step = (self.step_count + 1) % self.unroll_steps == 0
        draws = RandomState() if meta_step and self.method.before_update else None
        loss, weighting = self._base_loss(batch)
        require_finite(loss, "base loss", self.step_count + 1, {**self._theta, **self._lambda})
        point, evaluated = self._theta, None
        if draws is not None:  # the method belongs before the update, which overwrites θ
            point = {name: p.detach().clone() for name, p in self._theta.items()}
            evaluated = self._evaluated(draws, loss, weighting)
        theta = list(self._theta.values())
        for parameter, gradient in zip(theta, torch.autograd.grad(loss, theta), strict=True):
            parameter.grad = gradient
        before = remember(self.base_optimizer) if meta_step and self._adapts else None
        self.base_optimizer.step()
        meta_loss = self._meta_step(batch, before, point, evaluated) if meta_step else None
        self.base_optimizer.zero_grad(set_to_none=True)
        for scheduler in self.schedulers:
            scheduler.step()  # type: ignore[attr-defined]
        if self.after_base_step is not None:
            self.after_base_step()
        self.step_count += 1
        return StepResult(self.step_count, batch, loss.detach(), meta_loss, weighting)

    def _base_loss(self, batch: Any) -> tuple[Tensor, Weighting | None]:
        """The base loss; a weighting program's is put together here, so that its weights can be watched."""
        if not isinstance(self.program, WeightingProgram):
            return self.program.base_loss(self._theta, self._lambda, batch), None
        losses, features = self.program.example_losses(self._theta, batch)
        with torch.no_grad():
            weights = self.program.weights(self._lambda, features)
        return (weights * losses).mean(), Weighting(weights, losses.detach(), features.detach())

    def _evaluated(self, draws: RandomState, loss: Tensor, weighting: Weighting | None) -> Evaluated:
        """What this base step leaves to a one-sided difference."""
        if weighting is not None:
            return Evaluated(draws, losses=weighting.losses, features=weighting.features)
        return Evaluated(draws, of_meta=gradients_of(loss, self._lambda, retain_graph=True))

    def _meta_step(
        self, batch: Any, before: Memory | None, point: Mapping[str, Tensor], evaluated: Evaluated | None
    ) -> Tensor:
        gradients = {name: p.grad for name, p in self._theta.items() if p.grad is not None}
        result = self.method(
            self.program,
            point,
            self._lambda,
            batch,
            next(self.meta_batches),
            adapt=lambda vector: adapt(self.base_optimizer, self._theta, gradients, vector, before=before),
            update=self._update,
            evaluated=evaluated,
            alpha=self.alpha,
        )
        require_finite(result.meta_loss, "meta loss", self.step_count + 1, {**self._theta, **self._lambda})
        for name, parameter in self._lambda.items():
            parameter.grad = result.gradient[name]
        self.meta_optimizer.step()
        self.meta_optimizer.zero_grad(set_to_none=True)
        if result.displacement is not None:
            with torch.no_grad():
                for name, value in result.displacement.items():
                    self._theta[name].add_(value)
        return result.meta_loss

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step_count": self.step_count,
            "base": self.base.state_dict(),
            "meta": self.meta.state_dict(),
            "base_optimizer": self.base_optimizer.state_dict(),
            "meta_optimizer": self.meta_optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "meta_batches": self.meta_batches.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "extra": {name: item.state_dict() for name, item in self.extra_state.items()},
            "random": random_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        self.step_count = state["step_count"]
        self.base.load_state_dict(state["base"])
        self.meta.load_state_dict(state["meta"])
        self.base_optimizer.load_state_dict(state["base_optimizer"])
        self.meta_optimizer.load_state_dict(state["meta_optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.meta_batches.load_state_dict(state["meta_batches"])
        for scheduler, value in zip(self.schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(value)
        for name, item in self.extra_state.items():
            item.load_state_dict(state["extra"][name])
        set_random_state(state["random"])
