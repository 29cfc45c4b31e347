"""Programs whose base module is sharded over processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

A hypergradient method evaluates losses at values of θ of its own, by `functional_call`. A sharded module ignores them
without a word: its forward gathers what its shards hold, and the perturbed losses would be the unperturbed ones. Here
the values are written into the shards and the present ones put back from a copy, so that methods see an ordinary
program whose θ are this process's shards. Gradients by θ come reduced, as the mean over the processes, so that v is
that of the global batch; gradients by λ are those of this process's examples, and their mean is the loop's business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from sama.adaptation import Memory, adapt
from sama.adaptation.registry import Generic, rule_of
from sama.hypergradient.evaluation import norm
from sama.hypergradient.program import Batch, Params, Program, WeightingProgram

Evaluate = Callable[[Params, Params], tuple[Tensor, ...]]
"""(the module's own parameters, λ) -> outputs."""


def is_sharded(module: torch.nn.Module) -> bool:
    """Whether `fully_shard` was called on it."""
    return isinstance(module, FSDPModule)


def sharded(program: Program, module: torch.nn.Module) -> "ShardedProgram":
    """The program on the shards of `module`: a `ShardedWeightingProgram` of a weighting program.

    Raises:
        ValueError: as `ShardedProgram`.
    """
    if isinstance(program, WeightingProgram):
        return ShardedWeightingProgram(program, module)
    return ShardedProgram(program, module)


def whole(parameter: Tensor) -> Tensor:
    """The full tensor of a sharded parameter; any other tensor as it is.

    For programs that read a parameter by themselves (a penalty on θ) and not through `functional_call` alone. Its
    gradient becomes the mean over the processes, like that of a sharded module's own forward.
    """
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    full = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if full.requires_grad:
        full.register_hook(lambda gradient: gradient / mesh.size())
    return full


class ShardedProgram:
    """A program on a sharded module, as a program on this process's shards.

    The losses take `theta()`, or leaves in the same memory, or other values of the same shapes, and can be
    differentiated once, by θ and λ. An evaluation leaves the parameters, their `.grad` and FSDP as they were, also when
    it raises. It is a collective, and so is its backward pass: all processes take part, in the same order.

    The wrapped program is handed the module's parameters themselves. The memory is that of an evaluation of the
    module, and of one copy of the shards while it is elsewhere; activations live until the loss is dropped.

    Args:
        program: its losses call `module`, in whole. module: the root of `fully_shard`.

    Raises:
        ValueError: the module is not sharded, or a parameter of it is not, or not along one mesh dimension.
    """

    def __init__(self, program: Program, module: torch.nn.Module) -> None:
        if not isinstance(module, FSDPModule):
            raise ValueError(f"expected a module that fully_shard was called on, got {type(module).__name__}")
        if not hasattr(module, "reset_iter_state"):
            raise ValueError(f"torch {torch.__version__} cannot recover a sharded module from an error: upgrade torch")
        self.program, self._root = program, module
        self._units = [unit for unit in module.modules() if isinstance(unit, FSDPModule)]
        self._reshard()
        self.parameters: dict[str, DTensor] = {}
        groups = set()
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.parameters[name] = shard = _sharded(name, parameter)
                groups.add(_group_of(name, shard))
        if len(groups) != 1:
            raise ValueError(f"expected parameters sharded over one group of processes, got {len(groups)}")
        self._group: dist.ProcessGroup = groups.pop()

    def theta(self) -> dict[str, Tensor]:
        """Name -> this process's shard of a trainable parameter, a plain tensor in the parameter's own memory."""
        return {name: p.to_local().detach() for name, p in self.parameters.items()}

    def buffers(self) -> Iterable[Tensor]:
        """What a forward pass may write."""
        return self.program.buffers()

    def prepare(self, batch: Batch) -> Batch:
        """As the wrapped program does."""
        return getattr(self.program, "prepare", lambda same: same)(batch)

    def base_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        """`L_base` of this process's batch; its gradient by θ is the mean over the processes."""
        return self._evaluate(lambda theta, lam: (self.program.base_loss(theta, lam, batch),), base, meta)[0]

    def meta_loss(self, base: Params, meta: Params, batch: Batch) -> Tensor:
        """`L_meta` of this process's batch; its gradient by θ is the mean over the processes."""
        return self._evaluate(lambda theta, lam: (self.program.meta_loss(theta, lam, batch),), base, meta)[0]

    @torch.no_grad()
    def norm(self, vector: Mapping[str, Tensor]) -> Tensor:
        """The 2-norm of a vector whose shards the processes hold; the same in each."""
        own = norm(vector).reshape(1)
        every = [torch.empty_like(own) for _ in range(self._group.size())]
        dist.all_gather(every, own, group=self._group)
        return torch.linalg.vector_norm(torch.cat(every))

    def adapt(
        self,
        optimizer: torch.optim.Optimizer,
        gradients: Mapping[str, Tensor],
        vector: MutableMapping[str, Tensor],
        *,
        before: Memory | None = None,
        clip_factor: float | Tensor = 1.0,
        consume: bool = False,
    ) -> dict[str, Tensor]:
        """`sama.adaptation.adapt` from shards to shards; D may couple the processes (LAMB, Muon).

        Raises:
            ValueError: as there; or autodiff or probing would have to serve the optimizer.
        """
        if isinstance(rule_of(optimizer), Generic):
            raise ValueError(
                f"the optimizer {type(optimizer).__name__} is adapted by steps of a copy of it, which cannot be made "
                "of a sharded one: register a closed form with sama.adaptation.register, or use the method sama_na"
            )
        sharded_vector = self.as_shards(vector)
        if consume:
            vector.clear()
        adapted = adapt(
            optimizer,
            self.parameters,
            self.as_shards(gradients),
            sharded_vector,
            before=before,
            clip_factor=clip_factor,
            consume=True,
        )
        found: dict[str, Tensor] = {}
        for name, value in adapted.items():
            found[name] = _sharded(name, value).redistribute(placements=self.parameters[name].placements).to_local()
        return found

    def as_shards(self, shards: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Shards as sharded tensors in the same memory: what `.grad` of a parameter and the optimizer take."""
        return {
            name: DTensor.from_local(
                value,
                (like := self.parameters[name]).device_mesh,
                like.placements,
                run_check=False,
                shape=like.shape,
                stride=like.stride(),
            )
            for name, value in shards.items()
        }

    def _evaluate(self, evaluate: Evaluate, base: Params, meta: Params) -> tuple[Tensor, ...]:
        leaves = [*base.values(), *meta.values()]
        if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
            return _Evaluation.apply(self, evaluate, dict(base), dict(meta), *leaves)
        with self.at(base), torch.no_grad():
            return evaluate(self.parameters, meta)

    @contextmanager
    def at(self, theta: Params) -> Iterator[None]:
        """The module's shards hold these values, and no gradients, until the block ends, however it ends."""
        shards = self.theta()
        unknown = set(theta) - set(shards)
        if unknown:
            raise ValueError(f"the sharded module has no trainable parameter {', '.join(sorted(unknown))}")
        if any(forward_ad.unpack_dual(value).tangent is not None for value in theta.values()):
            raise ValueError("difference='exact' needs forward mode, which a sharded module has not: use 'central'")
        elsewhere = [name for name, value in theta.items() if value.data_ptr() != shards[name].data_ptr()]
        kept = {name: shards[name].clone() for name in elsewhere}
        gradients = {name: p.grad for name, p in self.parameters.items()}
        try:
            self._write({name: theta[name] for name in elsewhere})
            for p in self.parameters.values():
                p.grad = None
            yield
        except BaseException:
            with suppress(AttributeError):  # what torch raises if it has not run yet: then there is nothing to reset
                self._root.reset_iter_state()
            raise
        finally:
            self._write(kept)
            for name, p in self.parameters.items():
                p.grad = gradients[name]

    @torch.no_grad()
    def _write(self, values: Params) -> None:
        """Copy into the shards, and drop what was gathered from them before: a forward would take it for θ."""
        shards = self.theta()
        for name, value in values.items():
            shards[name].copy_(value)
        self._reshard()

    def _reshard(self) -> None:
        for unit in self._units:
            unit.reshard()


class ShardedWeightingProgram(ShardedProgram):
    """A weighting program on a sharded module."""

    program: WeightingProgram

    def example_losses(self, base: Params, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses [batch] and features [batch, k] of this process's batch; to be differentiated once, by θ."""
        losses, features = self._evaluate(lambda theta, _: self.program.example_losses(theta, batch), base, {})
        return losses, features

    def weights(self, meta: Params, features: Tensor) -> Tensor:
        """Weights [batch] of this process's batch."""
        return self.program.weights(meta, features)


class _Evaluation(torch.autograd.Function):
    """Outputs with a graph of their own, whose backward pass runs with θ in the shards, by FSDP's own rules.

    autograd must not see the module's parameters: FSDP hands their gradients out in `.grad` alone.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        program: ShardedProgram,
        evaluate: Evaluate,
        base: dict[str, Tensor],
        meta: dict[str, Tensor],
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.program, ctx.base = program, {name: value.detach() for name, value in base.items()}
        ctx.of_base = [name for name, value in base.items() if value.requires_grad]
        ctx.of_meta = {name: value.detach().requires_grad_(value.requires_grad) for name, value in meta.items()}
        ctx.set_materialize_grads(False)
        with program.at(ctx.base), torch.enable_grad():
            ctx.outputs = evaluate(program.parameters, ctx.of_meta)
        values = tuple(output.detach() for output in ctx.outputs)
        ctx.mark_non_differentiable(
            *(v for v, o in zip(values, ctx.outputs, strict=True) if not o.requires_grad),
        )
        return values

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # create_graph=True
            raise ValueError("a sharded module has no second derivatives: use sama, sama_na or darts")
        outputs, weights = zip(
            *((o, c) for o, c in zip(ctx.outputs, cotangents, strict=True) if o.requires_grad and c is not None),
            strict=True,
        )
        program: ShardedProgram = ctx.program
        lam = {name: leaf for name, leaf in ctx.of_meta.items() if leaf.requires_grad}
        found: dict[str, Tensor | None] = {}
        with program.at(ctx.base):
            # the outer graph may be retained, which nobody tells: so this one is
            if ctx.of_base:
                for leaf in lam.values():
                    leaf.grad = None
                torch.autograd.backward(outputs, weights, retain_graph=True)
                of_lam = [leaf.grad for leaf in lam.values()]
                for name in ctx.of_base:
                    gradient = program.parameters[name].grad
                    found[name] = gradient.to_local() if isinstance(gradient, DTensor) else None
            else:
                of_lam = torch.autograd.grad(outputs, list(lam.values()), weights, retain_graph=True, allow_unused=True)
        of_meta = dict(zip(lam, of_lam, strict=True))
        return (
            *(None, None, None, None),
            *(found.get(name) for name in ctx.base),
            *(of_meta.get(name) for name in ctx.of_meta),
        )


def _sharded(name: str, tensor: Tensor) -> DTensor:
    if not isinstance(tensor, DTensor):
        raise ValueError(f"parameter {name}: expected one that fully_shard has sharded, got a plain tensor")
    return tensor


def _group_of(name: str, parameter: DTensor) -> dist.ProcessGroup:
    """The processes that hold the shards of a parameter."""
    along = [k for k, placement in enumerate(parameter.placements) if placement != Replicate()]
    if len(along) != 1 or type(parameter.placements[along[0]]) is not Shard:
        raise ValueError(f"parameter {name}: expected shards along one mesh dimension, got {parameter.placements}")
    return parameter.device_mesh.get_group(along[0])
