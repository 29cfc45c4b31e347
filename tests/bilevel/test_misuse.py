"""What a user can get wrong is told in one line, and nothing is lost by it."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sama.bilevel import checkpoint
from sama.bilevel.batches import ShuffledBatches
from sama.bilevel.loop import BilevelLoop
from sama.hypergradient import method


class Scaled:
    """A scalar λ below the model: the inputs of the base loss are multiplied by exp(λ)."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def buffers(self):
        return self.model.buffers()

    def base_loss(self, base, meta, batch):
        return self.loss(base, batch[0] * meta["scale"].exp(), batch[1])

    def meta_loss(self, base, meta, batch):
        return self.loss(base, *batch)

    def loss(self, base, inputs, labels):
        return cross_entropy(functional_call(self.model, dict(base), (inputs,)), labels)


class Masked(nn.Module):
    """A model with a constant mask, expanded from one row."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mask", torch.ones(1, 4).expand(8, 4))

    def forward(self, x):
        return self.layer(x * self.mask)


def parts(**changes) -> dict:
    torch.manual_seed(0)
    inputs, labels = torch.randn(24, 4), torch.randint(0, 3, (24,))
    base = changes.pop("base", None) or nn.Linear(4, 3)
    meta = changes.pop("meta", None) or nn.ParameterDict({"scale": nn.Parameter(torch.tensor(0.1))})

    def batches(seed):
        return ShuffledBatches(24, 8, seed, lambda i, _: (inputs[i], labels[i]))

    arguments = {
        "program": Scaled(base),
        "base": base,
        "meta": meta,
        "base_optimizer": torch.optim.AdamW(base.parameters(), lr=0.1),
        "meta_optimizer": torch.optim.Adam(meta.parameters(), lr=0.1),
        "batches": batches(1),
        "meta_batches": batches(2),
        "method": "sama",
        "alpha": 0.1,
        "unroll_steps": 1,
    }
    return arguments | changes


def make_loop(**changes) -> BilevelLoop:
    return BilevelLoop(**parts(**changes))


def frozen() -> nn.Module:
    return nn.Linear(4, 3).requires_grad_(False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, "expected a finite alpha > 0, got -1.0"),
        ({"alpha": float("inf")}, "expected a finite alpha > 0, got inf"),
        ({"options": {"alpha": 5.0}}, "alpha is an argument of its own"),
        ({"options": {"difference": "foo"}}, "unknown difference 'foo': expected one of central, one_sided, exact"),
        ({"accumulate": 1.5}, "expected accumulate to be an integer >= 1, got 1.5"),
        ({"batches": [1, 2]}, "batches: expected an endless iterator like ShuffledBatches, got list"),
        ({"precision": "half"}, "expected precision float32, bf16 or fp16, got 'half'"),
    ],
)
def test_arguments_are_checked_before_the_first_step(changes, message):
    with pytest.raises(ValueError, match=message):
        make_loop(**changes)


def test_optimizers_hold_all_that_is_trained():
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the base optimizer SGD does not hold parameter weight"):
        make_loop(base_optimizer=optimizer)
    with pytest.raises(ValueError, match="the meta optimizer SGD does not hold parameter scale"):
        make_loop(meta_optimizer=optimizer)
    base = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="does not hold parameter bias: expected one optimizer of all of them; freeze"):
        make_loop(base=base, base_optimizer=torch.optim.SGD([base.weight], lr=0.1))


def test_modules_have_parameters_of_their_own():
    base = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(base.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="the base module has no parameter that requires a gradient"):
        make_loop(base=frozen(), base_optimizer=optimizer)
    with pytest.raises(ValueError, match="the meta module has no parameter that requires a gradient"):
        make_loop(meta=frozen(), meta_optimizer=optimizer)
    with pytest.raises(ValueError, match="meta parameter weight is base parameter weight too"):
        make_loop(base=base, meta=base)
    with pytest.raises(ValueError, match=r"base parameter weight is torch\.bfloat16: expected float32"):
        make_loop(base=nn.Linear(4, 3).bfloat16())


@pytest.mark.parametrize("level", ["base", "meta"])
def test_a_stream_that_ends_is_told(level):
    loop = make_loop()
    stream = iter([next(loop.batches)])
    setattr(loop, "batches" if level == "base" else "meta_batches", stream)
    loop.step()
    with pytest.raises(ValueError, match=f"the {level} batches ended in step 2: expected an endless stream"):
        loop.step()


def test_a_loss_that_reads_the_module_itself_is_told():
    class Careless(Scaled):
        def loss(self, base, inputs, labels):
            return cross_entropy(self.model(inputs), labels)

    base = nn.Linear(4, 3)
    with pytest.raises(ValueError, match=r"does not depend on the base parameters .* torch\.func\.functional_call"):
        make_loop(base=base, program=Careless(base)).step()


def test_a_loss_is_a_scalar():
    loop = make_loop()
    loop.program.base_loss = lambda base, meta, batch: base["weight"].square()  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"step 1: expected a scalar base loss, got shape \[3, 4\]"):
        loop.step()


def test_a_hypergradient_that_is_not_finite_reaches_no_parameter():
    loop = make_loop()
    start = loop.meta.get_parameter("scale").detach().clone()
    meta_loss = loop.program.meta_loss
    loop.program.meta_loss = lambda base, meta, batch: (  # type: ignore[method-assign]
        meta_loss(base, meta, batch) + (0.0 * base["weight"].sum()).sqrt()  # 0, with the derivative 0 · ∞
    )
    with pytest.raises(FloatingPointError, match=r"norm of the hypergradient is nan.* hypergradient of scale"):
        loop.step()
    assert torch.equal(loop.meta.get_parameter("scale"), start)


@pytest.mark.parametrize("name", ["sama", "neumann", "cg", "exact", "itd", "darts"])
def test_a_scalar_meta_parameter_is_one(name):
    loop = make_loop(method=name, options={"regularization": 0.1} if name == "exact" else None)
    start = loop.meta.get_parameter("scale").detach().clone()
    loop.step()
    assert not torch.equal(loop.meta.get_parameter("scale"), start)


def test_the_exact_difference_of_a_general_program_is_its_derivative():
    """λ below the logits: forward over reverse has no such derivative in torch, reverse over reverse has."""
    base, meta = nn.Linear(4, 3).double(), {"scale": torch.tensor(0.3, dtype=torch.float64)}
    program, theta = Scaled(base), {n: p.detach() for n, p in base.named_parameters()}
    torch.manual_seed(3)
    batch, meta_batch = ((torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))) for _ in range(2))
    found = method("sama_na", difference="exact", alpha=0.1)(program, theta, meta, batch, meta_batch).gradient["scale"]
    v = torch.func.grad(lambda t: program.meta_loss(t, meta, meta_batch))(theta)
    mixed = torch.func.jacrev(lambda m: torch.func.grad(program.base_loss)(theta, m, batch))(meta)
    truth = -sum((mixed[n]["scale"] * v[n]).sum() for n in theta)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=0)


def test_constant_buffers_may_be_expanded():
    loop = make_loop(base=Masked())
    loop.step()


def test_batches_are_made_in_full_precision():
    seen = []
    inputs, labels = torch.randn(24, 4), torch.randint(0, 3, (24,))

    def make(indices, _):
        rotated = inputs[indices] @ torch.eye(4)
        seen.append(rotated.dtype)
        return rotated, labels[indices]

    make_loop(precision="bf16", batches=ShuffledBatches(24, 8, 1, make)).step()
    assert seen == [torch.float32]


def test_a_checkpoint_of_another_run_changes_nothing():
    base = nn.Linear(4, 3)
    teacher = nn.Linear(1, 1)
    state = make_loop(precision="bf16").state_dict()
    loop = make_loop(base=base)
    loop.step()
    before = copy.deepcopy(loop.state_dict())
    with pytest.raises(ValueError, match="expected a state of precision float32, got one of bf16"):
        loop.load_state_dict(state)
    other = make_loop(extra_state={"teacher": teacher}).state_dict()
    with pytest.raises(ValueError, match=r"has the extras \['teacher'\] and 0 schedulers, expected \[\] and 0"):
        loop.load_state_dict(other)
    assert str(loop.state_dict()) == str(before)


def test_a_state_that_is_kept_does_not_follow_the_next_step():
    teacher = nn.Linear(1, 1)
    loop = make_loop(extra_state={"teacher": teacher})
    state = loop.state_dict()
    kept = str(state)
    with torch.no_grad():
        teacher.weight.add_(1)
    loop.step()
    assert str(state) == kept


def test_a_checkpoint_that_could_not_be_read_is_not_written(tmp_path):
    path = tmp_path / "state.pt"
    base = nn.Linear(4, 3)
    loop = make_loop(base=base, base_optimizer=torch.optim.SGD(base.parameters(), lr=np.float64(0.1)))
    with pytest.raises(TypeError, match=r"state\['base'\].*\['lr'\]: expected tensors, numbers.*got a numpy\.float64"):
        checkpoint.save(path, loop.state_dict(), "key")
    assert not path.exists()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        checkpoint.load(path, "key")
