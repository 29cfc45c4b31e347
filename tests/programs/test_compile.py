"""Compiled forwards: the same steps as without."""

import pytest
import torch
from torch import nn

from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.networks.correction import CorrectAndWeight, CorrectionNetwork
from sama.networks.ema import EMATeacher
from sama.networks.meta_weight import MetaWeightNetwork
from sama.programs.correct import Correct
from sama.programs.reweight import LabelledBatch, Reweight


def make_loop(kind: str, difference: str) -> BilevelLoop:
    torch.manual_seed(0)
    inputs, labels = torch.randn(40, 5), torch.randint(0, 3, (40,))
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    teacher = EMATeacher(model, 0.8)
    if kind == "reweight":
        meta: nn.Module = MetaWeightNetwork(2, 7)
        program = Reweight(model, meta, features=("loss", "uncertainty"), teacher=teacher, normalize=True)
    else:
        meta = CorrectAndWeight(CorrectionNetwork(8, 3), MetaWeightNetwork(1, 7))
        program = Correct(model, meta, classes=3, head=model[4], normalize=True)
    for parameter in meta.parameters():
        nn.init.normal_(parameter, std=0.3)

    def batch(indices, _):
        return LabelledBatch(inputs[indices], labels[indices], indices)

    torch.manual_seed(1)
    return BilevelLoop(
        program,
        model,
        meta,
        torch.optim.AdamW(model.parameters(), lr=0.01),
        torch.optim.Adam(meta.parameters(), lr=0.01),
        ShuffledBatches(40, 8, 1, batch),
        ShuffledBatches(40, 8, 2, batch),
        method="sama",
        alpha=0.1,
        unroll_steps=1,
        options={"difference": difference},
        after_base_step=lambda: teacher.update(model),
    )


def trained(kind: str, difference: str, backend: str | None, steps: int = 4) -> torch.Tensor:
    loop = make_loop(kind, difference)
    if backend is not None:
        torch._dynamo.reset()
        loop.program.compile(backend=backend)  # type: ignore[attr-defined]
    for _ in range(steps):
        loop.step()
    tensors = [*loop.base.state_dict().values(), *loop.meta.state_dict().values()]
    return torch.cat([t.double().flatten() for t in tensors])


@pytest.mark.parametrize("difference", ["central", "one_sided"])
@pytest.mark.parametrize("kind", ["reweight", "correct"])
def test_a_compiled_forward_takes_the_same_steps(kind, difference):
    torch._dynamo.utils.counters.clear()
    compiled = trained(kind, difference, "aot_eager")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "with a graph for gradients, and without"
    torch.testing.assert_close(compiled, trained(kind, difference, None), rtol=1e-6, atol=1e-7)


@pytest.mark.long
def test_inductor_draws_the_same_masks_for_both_signs():
    """Its masks are not those of eager mode; were they others in each evaluation, λ would follow noise of 1/2ε."""
    loop = make_loop("reweight", "central")
    loop.program.compile()  # type: ignore[attr-defined]
    losses = []
    original = loop.program.example_losses  # type: ignore[attr-defined]

    def watch(base, batch):
        found = original(base, batch)
        losses.append(found[0].detach())
        return found

    loop.program.example_losses = watch  # type: ignore[attr-defined]
    for _ in range(3):
        losses.clear()
        loop.step()
        _, plus, minus = losses
        assert 0 < (plus - minus).abs().max() < 0.5
