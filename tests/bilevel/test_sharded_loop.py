"""The loop on a sharded base module (FSDP2) against one process that takes the global batch in micro-batches."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from sama.bilevel import checkpoint
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.reweight import LabelledBatch, Reweight
from tests.bilevel.processes import run
from tests.bilevel.programs import Decay

KINDS = [("weights", {}), ("weights", {"displace": True}), ("weights", {"difference": "one_sided"}), ("decay", {})]
STEPS = 4


def make_loop(kind: str, options: dict, *, shard: bool, parts: int) -> BilevelLoop:
    torch.manual_seed(0)
    inputs, labels = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()  # 7 rows do not divide by 2
    meta: nn.Module = MetaWeightNetwork(1, 6).double()
    if kind == "decay":
        shapes = {n.replace(".", "/"): torch.full_like(p, -4.0) for n, p in model.named_parameters()}
        meta = nn.ParameterDict(shapes)
    else:
        nn.init.normal_(meta.output.weight)
    where: dict[str, Any] = {"rank": 0, "world_size": 1}
    if shard:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in (model[0], model[2], model):
            fully_shard(layer, mesh=mesh)
        where = {"rank": dist.get_rank(), "world_size": dist.get_world_size()}
    program = (
        Decay(model) if kind == "decay" else Reweight(model, meta, features=("loss",), teacher=None, normalize=True)
    )

    def batch(indices, _):
        return LabelledBatch(inputs[indices], labels[indices], indices)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, eps=1e-3)
    return BilevelLoop(
        program,
        model,
        meta,
        optimizer,
        torch.optim.SGD(meta.parameters(), lr=1.0, momentum=0.5),
        ShuffledBatches(32, 4, 1, batch, **where),
        ShuffledBatches(32, 4, 2, batch, **where),
        method="sama",
        alpha=0.01,
        unroll_steps=2,
        options=options,
        accumulate=parts,
        meta_accumulate=parts,
        clip_norm=0.1,
        meta_clip_norm=0.01,
        schedulers=[torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)],
        group=dist.group.WORLD if shard else None,
    )


def states(loop: BilevelLoop) -> list[torch.Tensor]:
    state = loop.state_dict()
    return [*state["base"]["module"].values(), *state["meta"]["module"].values()] if state["base"] else []


def train(folder) -> list[list[torch.Tensor]]:
    """In each process: all kinds sharded; and a checkpoint after half of the steps."""
    found = []
    for kind, options in KINDS:
        loop = make_loop(kind, options, shard=True, parts=1)
        for leaf in loop._theta.values():
            leaf.grad = torch.ones_like(leaf)  # what a step that failed would leave
        for step in range(STEPS):
            if step == STEPS // 2:
                state = loop.state_dict()
                if dist.get_rank() == 0:
                    checkpoint.save(folder / "state.pt", state, "key")
            loop.step()
        found.append(states(loop))
    again = make_loop(*KINDS[-1], shard=True, parts=1)
    dist.barrier()
    state = checkpoint.load(folder / "state.pt", "key")
    assert state is not None
    again.load_state_dict(state)
    for _ in range(STEPS // 2):
        again.step()
    return [*found, states(again)]


def test_two_processes_with_shards_train_like_one_on_the_global_batch(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (*found, resumed), others = run(2, train, store, tmp_path)
    assert all(not state for state in others), "the whole state is the first process's"
    for (kind, options), sharded in zip(KINDS, found, strict=True):
        alone = make_loop(kind, options, shard=False, parts=2)
        start = states(alone)
        for _ in range(STEPS):
            alone.step()
        for mine, theirs, begun in zip(sharded, states(alone), start, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9, msg=f"{kind} {options}")
            assert not torch.equal(mine, begun)
    assert all(torch.equal(a, b) for a, b in zip(resumed, found[-1], strict=True))
    state = checkpoint.load(tmp_path / "state.pt", "key")  # of two processes, into one
    assert state is not None
    alone = make_loop(*KINDS[-1], shard=False, parts=2)
    alone.load_state_dict(state)
    for _ in range(STEPS // 2):
        alone.step()
    for mine, theirs in zip(states(alone), resumed, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)
