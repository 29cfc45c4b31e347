"""The one entry: what it takes, refuses, remembers and leaves alone."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import timm.optim
import torch

from sama.adaptation import RULES, Memory, adapt, register, remember
from sama.adaptation.registry import ClosedForm, full_name
from tests.adaptation.cases import NAMES, SHAPES, TABLE, Last, assert_near, drawn

ENTRIES = [pytest.param(entry, id=f"{name}-{k}") for name, entries in TABLE.items() for k, entry in enumerate(entries)]


def arguments(parameter):
    return ({"p": parameter}, {"p": torch.ones(2)}, {"p": torch.ones(2)})


def everything(last):
    """Bits of parameters, gradients, groups and state."""
    state = copy.deepcopy(last.optimizer.state_dict())
    return [*(p.detach().clone() for p in last.parameters), *(p.grad.clone() for p in last.parameters)], state


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.mark.filterwarnings("ignore:the step of")
@pytest.mark.parametrize("entry", [*ENTRIES, *[pytest.param(e, id=e.__name__) for e in (timm.optim.Adan,)]])
def test_nothing_is_touched(entry):
    if isinstance(entry, type):
        last = Last(entry, [{}, {}], 3)
    else:
        last = Last(entry.kind, entry.options, 3, shapes=entry.shapes)
    before = last.take()
    snapshot, random = everything(last), torch.get_rng_state()
    last.adapted(before)
    assert same(snapshot, everything(last))
    assert torch.equal(random, torch.get_rng_state())
    assert not any(p.grad.requires_grad for p in last.parameters if p.grad is not None)


@pytest.mark.parametrize(
    ("kind", "options", "copied"),
    [
        (torch.optim.SGD, {"weight_decay": 0.1}, 0),
        (torch.optim.Adam, {"weight_decay": 0.1}, 0),
        (torch.optim.AdamW, {}, 0),
        (torch.optim.RAdam, {"weight_decay": 0.1}, 0),
        (timm.optim.Lion, {"weight_decay": 0.1}, 0),
        *(
            (kind, options, copied)
            for kind in (torch.optim.Adamax, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.RMSprop)
            for options, copied in (({}, 0), ({"weight_decay": 0.1}, 1))
        ),
        (timm.optim.Lamb, {"weight_decay": 0.0}, 1),  # the other group decays by timm's default
        (timm.optim.Lamb, {"weight_decay": 0.1}, 2),
        (torch.optim.NAdam, {}, 0),
        (torch.optim.NAdam, {"weight_decay": 0.1}, 1),
        (torch.optim.NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}, 0),
        (timm.optim.Lars, {}, 0),
        (timm.optim.Lars, {"always_adapt": True}, 1),
    ],
)
def test_nothing_is_copied_that_is_not_needed(kind, options, copied):
    last = Last(kind, [options, {}], 1)
    memory = remember(last.optimizer)
    assert memory.replica is None
    assert len(memory.parameters) == copied


def test_what_needs_a_memory_says_how_to_take_one():
    hint = r"before = sama.adaptation.remember\(optimizer\)"
    last = Last(torch.optim.SGD, [{"momentum": 0.5, "dampening": 0.1}, {}], 1)
    last.take()
    with pytest.raises(ValueError, match=rf"SGD needs to know whether the step was the first.*{hint}"):
        last.adapted(None)
    last = Last(torch.optim.Adagrad, [{"weight_decay": 0.1}, {}], 1)
    last.take()
    with pytest.raises(ValueError, match=rf"Adagrad needs the parameters from before the step: .*{hint}"):
        last.adapted(None)
    last = Last(torch.optim.ASGD, [{}, {}], 1)
    last.take()
    with pytest.raises(ValueError, match=rf"ASGD needs a copy of the optimizer from before the step: .*{hint}"):
        last.adapted(None)


def test_what_needs_no_memory_goes_without():
    last = Last(torch.optim.Adam, [{"weight_decay": 0.1}, {"amsgrad": True}], 3)
    before = last.take()
    assert_near(last.adapted(None), last.adapted(before), rtol=0, atol=0)


def test_an_optimizer_that_took_no_step_and_a_foreign_parameter_are_errors():
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match="the adaptation of Adam needs the state of a step: take a base step before"):
        adapt(torch.optim.Adam([parameter]), *arguments(parameter))
    with pytest.raises(ValueError, match="parameter p: the optimizer SGD does not hold it"):
        adapt(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1), *arguments(parameter))
    with pytest.raises(ValueError, match=r"parameter p: expected a dense real gradient, got torch.sparse_coo"):
        sparse = {"p": torch.ones(2).to_sparse()}
        adapt(torch.optim.SGD([parameter], lr=0.1), {"p": parameter}, sparse, {"p": torch.ones(2)})


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.ASGD, timm.optim.Adan])
def test_a_parameter_that_the_step_left_out_gets_zero(kind):
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = kind([used, unused], lr=0.1)
    before = None
    for gradient in ([0.5, -2.0], [1.0, 0.7]):
        before = remember(optimizer)
        used.grad = torch.tensor(gradient)
        optimizer.step()
    assert used.grad is not None
    x = {"used": torch.ones(2), "unused": torch.ones(2)}
    found = adapt(optimizer, {"used": used, "unused": unused}, {"used": used.grad}, x, before=before)
    assert found["used"].all()
    assert torch.equal(found["unused"], torch.zeros(2))


@pytest.mark.filterwarnings("ignore:the step of")
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_large_parameter_is_taken_in_parts_where_that_changes_nothing(entry, monkeypatch):
    last = Last(entry.kind, entry.options, 3, shapes=entry.shapes)
    before = last.take()
    whole, seen = last.adapted(before), []
    rule = RULES[full_name(entry.kind)]
    if isinstance(rule, ClosedForm):
        watched = replace(rule, form=lambda step, x: seen.append(x.numel()) or rule.form(step, x))
        monkeypatch.setitem(RULES, full_name(entry.kind), watched)
    monkeypatch.setattr("sama.adaptation.SMALL", 3)
    assert_near(last.adapted(before), whole, rtol=1e-15, atol=0)
    if isinstance(rule, ClosedForm):
        diagonal = entry.kind.__name__ not in ("Lamb", "Lars", "Muon")
        assert seen == ([2, 2, 2, 3, 1] if diagonal else [x.numel() for x in last.vectors])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.ASGD])
def test_consumed_vectors_can_go(kind):
    last = Last(kind, [{}, {}], 3)
    before = last.take()
    whole, vector = last.adapted(before), dict(zip(NAMES, last.vectors, strict=True))
    parameters, gradients = (dict(zip(NAMES, values, strict=True)) for values in (last.parameters, last.gradients))
    found = adapt(last.optimizer, parameters, gradients, vector, before=before, consume=True)
    assert_near([found[name] for name in NAMES], whole, rtol=0, atol=0)
    assert not vector


@pytest.mark.parametrize("clip_factor", [1.0, 0.25])
def test_a_large_consumed_vector_is_written_over_unless_another_shares_its_memory(clip_factor, monkeypatch):
    monkeypatch.setattr("sama.adaptation.SMALL", 3)
    parameters = {name: torch.nn.Parameter(torch.randn(4, 2)) for name in "abc"}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.1)
    for parameter in parameters.values():
        parameter.grad = torch.randn(4, 2)
    optimizer.step()
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    shared, alone = torch.randn(4, 2), torch.randn(4, 2)
    vector = {"a": shared, "b": shared, "c": alone}
    expected = adapt(optimizer, parameters, gradients, {name: x.clone() for name, x in vector.items()})
    found = adapt(optimizer, parameters, gradients, vector, clip_factor=clip_factor, consume=True)
    for name in "abc":
        torch.testing.assert_close(found[name], clip_factor * expected[name], rtol=0, atol=0)
    assert found["c"] is alone


def test_the_clip_factor_is_a_constant():
    last = Last(torch.optim.Adam, [{}, {}], 3)
    before = last.take()
    plain = last.adapted(before)
    assert_near(last.adapted(before, clip_factor=torch.tensor(0.25)), [0.25 * p for p in plain], rtol=1e-15, atol=0)


def test_a_form_that_hands_x_back_is_not_scaled_in_place():
    class Same(torch.optim.SGD):
        pass

    register(Same, lambda step, x: x)
    try:
        parameters = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.nn.Parameter(torch.ones(2))}
        optimizer, x = Same(parameters.values(), lr=0.1), torch.full((2,), 4.0)
        gradients = {name: torch.ones(2) for name in parameters}
        found = adapt(optimizer, parameters, gradients, {"a": x, "b": x}, clip_factor=0.5)
    finally:
        del RULES[full_name(Same)]
    assert x.tolist() == [4.0, 4.0]
    assert {name: value.tolist() for name, value in found.items()} == {"a": [2.0, 2.0], "b": [2.0, 2.0]}


def test_lambs_own_clipping_is_a_constant_too():
    """LAMB that clips = LAMB without, fed with clipped gradients, times the clip factor."""
    generator = torch.Generator().manual_seed(3)
    starts = [drawn(s, generator) for s in SHAPES]
    steps = [[drawn(s, generator) for s in SHAPES] for _ in range(3)]
    vectors = dict(zip(NAMES, [drawn(s, generator) for s in SHAPES], strict=True))

    def run(limit, clip):
        parameters = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = timm.optim.Lamb(parameters, lr=0.1, weight_decay=0.2, max_grad_norm=limit)
        factor, before = torch.ones(()), None
        for gradients in steps:
            factor = (0.5 / torch.cat([g.flatten() for g in gradients]).norm()).clamp(max=1) if clip else factor
            before = remember(optimizer)
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g * factor
            optimizer.step()
        named = dict(zip(NAMES, parameters, strict=True))
        seen = {name: p.grad for name, p in named.items() if p.grad is not None}
        return adapt(optimizer, named, seen, vectors, before=before, clip_factor=factor)

    inside, outside = run(0.5, clip=False), run(None, clip=True)
    assert_near(list(inside.values()), list(outside.values()), rtol=1e-11, atol=0)


@pytest.mark.parametrize("optimizer", ["Rprop", "Lion"])
def test_sign_optimizers_warn_that_v_is_zero(optimizer):
    kind = getattr(torch.optim, optimizer, None) or getattr(timm.optim, optimizer)
    last = Last(kind, [{}, {}], 2)
    before = last.take()
    with pytest.warns(
        UserWarning, match=rf"step of {optimizer} does not change with the size of its gradient, so D = 0"
    ):
        found = last.adapted(before)
    assert not any(f.any() for f in found)


def test_a_subclass_is_not_taken_for_its_parent(monkeypatch):
    class Halved(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(0.5 * group["lr"] * p.grad)

    monkeypatch.setattr("sama.adaptation.registry.RULES", dict(RULES))
    last = Last(Halved, [{"lr": 0.2}, {"lr": 0.6}], 2)
    before = last.take()
    truth = [c * x for c, x in zip([0.1, 0.3], last.vectors, strict=True)]
    assert before.replica is not None
    assert_near(last.adapted(before), truth, rtol=1e-9, atol=1e-9)
    register(Halved, lambda step, x: 0.5 * step.option("lr") * x)
    assert_near(last.adapted(Memory(frozenset())), truth, rtol=1e-15, atol=0)


def test_adamuon_is_refused():
    last = Last(timm.optim.Muon, [{"algo": "adamuon"}, {}], 2, shapes=[(5, 4), (6, 4)])
    before = last.take()
    with pytest.raises(ValueError, match=r"covers algo='muon', got 'adamuon'"):
        last.adapted(before)


def test_muon_without_evidence_gets_zero():
    last = Last(torch.optim.Muon, [{}, {}], 2, shapes=[(5, 4), (6, 4)], edit=torch.zeros_like)
    before = last.take()
    assert not any(f.any() for f in last.adapted(before))


def test_timm_is_served_by_name_and_not_imported():
    code = "import sys, sama.adaptation as a; print('timm' in sys.modules, 'timm.optim.lamb.Lamb' in a.RULES)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False True"
