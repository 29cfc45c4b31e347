"""A step on a CUDA device waits for it nowhere but where it looks whether its losses are finite."""

import pytest
import torch

from benchmarks.shapes import SHAPES, reweighting
from sama.bilevel import loop as module

pytestmark = pytest.mark.gpu
METHODS = [("sama", {}), ("sama", {"difference": "one_sided"}), ("sama", {"difference": "exact"}), ("sama_na", {}),
           ("darts", {}), ("neumann", {"iterations": 2}), ("cg", {"iterations": 2})]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), METHODS)
def test_a_step_does_not_synchronise(method, options, monkeypatch):
    looks = []

    def look(*arguments):
        torch.cuda.set_sync_debug_mode("default")
        try:
            looks.append(original(*arguments))
        finally:
            torch.cuda.set_sync_debug_mode("error")

    original = module.require_finite
    monkeypatch.setattr(module, "require_finite", look)
    shape = SHAPES["bert_2x128"]
    loop = reweighting(
        shape.build("sdpa", 0.1).cuda(),
        shape.batch(4, 16, "cuda"),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-4, fused=True),
        method=method,
        options=options,
        unroll_steps=1,
    )
    for _ in range(2):  # the states are made
        loop.step()
    looks.clear()
    try:
        torch.cuda.set_sync_debug_mode("error")
        loop.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(looks) == 3  # base loss, meta loss, norm of the hypergradient
