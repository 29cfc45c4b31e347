"""Other ways to a hypergradient: libraries, where they are installed, and torch's own means; each a peer.

A peer is a function `Task -> iteration`:

- it is given the `Task`: model, meta network, batches, losses and learning rates, its own copies of them;
- it returns a function without arguments that does one meta iteration: at the parameters as they stand, a meta step of
  Adam along the hypergradient of one step of SGD without momentum, then that base step itself. It changes the
  parameters of the task's two modules in place, and returns the hypergradient: name of λ's tensor -> value.

All but SAMA differentiate the meta loss behind the step exactly, and so have the same hypergradient.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from benchmarks.workload import Shape, modules, texts
from sama.adaptation import adapt
from sama.errors import SamaError
from sama.hypergradient import DifferentiableUpdate, method
from sama.hypergradient.evaluation import differentiable_kernels
from sama.networks.meta_weight import normalize_by_mean
from sama.programs.reweight import LabelledBatch, Reweight

Gradients = Mapping[str, Tensor]
Iteration = Callable[[], Gradients]


@dataclass(frozen=True)
class Task:
    """What a peer works on.

    Attributes:
        model: token ids -> logits [batch, classes]; nothing in it is random.
        network: losses [batch, 1] -> weights [batch].
        batch, meta_batch: `inputs`, `labels`; the same at each iteration.
        learning_rate: of SGD on the model. meta_learning_rate: of Adam on the network.
    """

    model: nn.Module
    network: nn.Module
    batch: LabelledBatch
    meta_batch: LabelledBatch
    learning_rate: float = 0.05
    meta_learning_rate: float = 1e-3

    def base_loss(self, model: Callable[[Any], Tensor], network: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of the losses, each with the weight that the network gives it; no gradient flows through its input."""
        losses = cross_entropy(model(self.batch.inputs), self.batch.labels, reduction="none")
        return (normalize_by_mean(network(losses.detach()[:, None])) * losses).mean()

    def meta_loss(self, model: Callable[[Any], Tensor]) -> Tensor:
        """Mean loss on the meta batch."""
        return cross_entropy(model(self.meta_batch.inputs), self.meta_batch.labels)

    def named(self, gradients: Sequence[Tensor]) -> Gradients:
        """Gradients in the order of the network's parameters, by name."""
        return dict(zip(dict(self.network.named_parameters()), gradients, strict=True))


def make_task(shape: Shape, examples: int, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Task:
    """The same task at each call."""
    model, network = modules(shape, device=device, dtype=dtype)
    return Task(model, network, texts(shape, examples, 1, device), texts(shape, examples, 2, device))


def iterations(task: Task, hypergradient: Callable[[], Gradients]) -> Iteration:
    """A meta iteration around a function that returns the hypergradient and writes nothing."""
    base = torch.optim.SGD(task.model.parameters(), lr=task.learning_rate)
    meta = torch.optim.Adam(task.network.parameters(), lr=task.meta_learning_rate)

    def iterate() -> Gradients:
        found = hypergradient()
        for name, parameter in task.network.named_parameters():
            parameter.grad = found[name].detach()
        meta.step()
        meta.zero_grad()
        task.base_loss(task.model, task.network).backward()
        meta.zero_grad()
        base.step()
        base.zero_grad()
        return found

    return iterate


def second_order(function: Callable[[], Gradients]) -> Callable[[], Gradients]:
    """The function with attention by its math kernel, which alone has a second derivative."""

    def call() -> Gradients:
        with differentiable_kernels():
            return function()

    return call


def plain(task: Task) -> Iteration:
    """Plain training: the base step alone, and an empty hypergradient."""
    base = torch.optim.SGD(task.model.parameters(), lr=task.learning_rate)

    def iterate() -> Gradients:
        cross_entropy(task.model(task.batch.inputs), task.batch.labels).backward()
        base.step()
        base.zero_grad()
        return {}

    return iterate


def ours(name: str, **knobs: Any) -> Callable[[Task], Iteration]:
    """A method of `sama.hypergradient` as a peer."""

    def peer(task: Task) -> Iteration:
        program = Reweight(task.model, task.network, features=("loss",), teacher=None, normalize=True)
        theta, lam = dict(task.model.named_parameters()), dict(task.network.named_parameters())
        optimizer = torch.optim.SGD(task.model.parameters(), lr=task.learning_rate)
        update = DifferentiableUpdate(optimizer, theta)
        # D of SGD without momentum is its learning rate, whatever the gradient was
        of_optimizer = {"adapt": lambda x: adapt(optimizer, theta, x, x), "update": update}

        def hypergradient() -> Gradients:
            found = method(name, **knobs)(program, theta, lam, task.batch, task.meta_batch, **of_optimizer, alpha=0.1)
            return found.gradient

        return iterations(task, hypergradient)

    return peer


def of_torchopt(task: Task) -> Iteration:
    """TorchOpt's differentiable SGD."""
    torchopt = importlib.import_module("torchopt")
    optimizer = torchopt.MetaSGD(task.model, lr=task.learning_rate)

    def hypergradient() -> Gradients:
        before = [torchopt.extract_state_dict(x, by="reference") for x in (task.model, optimizer)]
        optimizer.step(task.base_loss(task.model, task.network))
        gradients = torch.autograd.grad(task.meta_loss(task.model), list(task.network.parameters()))
        for x, state in zip((task.model, optimizer), before, strict=True):
            torchopt.recover_state_dict(x, state)
        return task.named(gradients)

    return iterations(task, second_order(hypergradient))


def of_higher(task: Task) -> Iteration:
    """The inner loop of `higher`, which is no longer maintained."""
    higher = importlib.import_module("higher")
    optimizer = torch.optim.SGD(task.model.parameters(), lr=task.learning_rate)

    def hypergradient() -> Gradients:
        with higher.innerloop_ctx(task.model, optimizer) as (model, inner):
            inner.step(task.base_loss(model, task.network))
            gradients = torch.autograd.grad(task.meta_loss(model), list(task.network.parameters()))
        return task.named(gradients)

    return iterations(task, second_order(hypergradient))


def unrolled(task: Task) -> Iteration:
    """`torch.func`: the gradient of the meta loss through a step that is itself a gradient."""

    def hypergradient() -> Gradients:
        theta, lam = ({n: p.detach() for n, p in m.named_parameters()} for m in (task.model, task.network))

        def base_loss(theta, lam):
            return task.base_loss(_called(task.model, theta), _called(task.network, lam))

        def meta_loss(lam):
            g = torch.func.grad(base_loss)(theta, lam)
            return task.meta_loss(_called(task.model, {n: theta[n] - task.learning_rate * g[n] for n in theta}))

        return torch.func.grad(meta_loss)(lam)

    return iterations(task, second_order(hypergradient))


def mixed_derivative(task: Task) -> Iteration:
    """`torch.func`: −ξ (∂²L_base/∂λ∂θ) v with v = ∂L_meta/∂θ behind the step, both by reverse mode."""

    def hypergradient() -> Gradients:
        theta, lam = ({n: p.detach() for n, p in m.named_parameters()} for m in (task.model, task.network))

        def base_gradient(lam):
            return torch.func.grad(
                lambda theta: task.base_loss(_called(task.model, theta), _called(task.network, lam))
            )(theta)

        g, pull_back = torch.func.vjp(base_gradient, lam)[:2]
        ahead = {n: theta[n] - task.learning_rate * g[n] for n in theta}
        v = torch.func.grad(lambda theta: task.meta_loss(_called(task.model, theta)))(ahead)
        return {n: -task.learning_rate * value for n, value in pull_back(v)[0].items()}

    return iterations(task, second_order(hypergradient))


def _called(module: nn.Module, parameters: Mapping[str, Tensor]) -> Callable[[Any], Tensor]:
    return lambda inputs: functional_call(module, dict(parameters), (inputs,))


Peer = Callable[[Task], Iteration]

PEERS: dict[str, tuple[Peer, str | None]] = {
    "plain training": (plain, None),
    "sama": (ours("sama"), None),
    "sama's itd": (ours("itd", inner_steps=1), None),
    "TorchOpt": (of_torchopt, "torchopt"),
    "higher": (of_higher, "higher"),
    "torch.func, unrolled step": (unrolled, None),
    "torch.func, mixed derivative": (mixed_derivative, None),
}
"""Name -> peer, and the package that it needs besides torch."""


def external(reference: str) -> Peer:
    """The function that `module:function` names, its iterations with the attention that second derivatives need.

    Raises:
        SamaError: it is not of that form, or there is no such function.
    """
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise SamaError(f"--peer {reference}: expected module:function")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module of others does when it is imported
        raise SamaError(f"--peer {reference}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise SamaError(f"--peer {reference}: expected a function of a Task, got a {type(found).__name__}")
    function: Callable[[Task], Any] = found
    return lambda task: second_order(function(task))
