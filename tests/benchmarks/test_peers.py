"""Peers: the same hypergradient as ours, and what a hook of somebody else's has to keep to."""

import re
import sys
from pathlib import Path

import pytest
import torch

import sama
from benchmarks import peers
from benchmarks.peer_methods import PEERS, external, iterations, make_task, unrolled
from benchmarks.workload import Shape
from sama.errors import SamaError
from sama.files import read_json

SMALL = {"shape": Shape(width=8, layers=1, tokens=4, vocabulary=20, heads=2, meta_width=4), "examples": 4}
ONCE = SMALL | {"repeats": 1, "calls": 1}
OURS = [name for name, (_, package) in PEERS.items() if package is None and name not in ("plain training", "sama")]


def difference(peer) -> float:
    found = peers.checked("peer", peer)["difference"]
    assert found is not None
    return found


@pytest.mark.parametrize("name", OURS)
def test_a_differentiated_step_has_the_hypergradient_of_itd(name):
    assert difference(PEERS[name][0]) < 1e-12


def test_sama_goes_the_same_way():
    assert 1e-6 < difference(PEERS["sama"][0]) < 0.2
    assert (peers.checked("sama", PEERS["sama"][0])["cosine"] or 0) > 0.99


def test_what_is_not_installed_or_fails_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "higher", None)

    def broken(task):
        raise RuntimeError("no second derivative\nof this")

    known = {name: PEERS[name] for name in ("plain training", "sama", "higher")}
    plain, ours, missing, failed = peers.measured(ONCE, known | {"a.b:c": (broken, None)}, "cpu")
    assert plain["time_ratio"] == 1 and plain["difference"] is None
    assert ours["status"] == "measured" and ours["ratio_to_sama"] == 1 and ours["peak_bytes"] > 0
    assert missing["status"] == "not installed: higher" and "seconds" not in missing
    assert failed["status"] == "failed: RuntimeError: no second derivative" and "seconds" not in failed


HOOK = """
from benchmarks.peer_methods import iterations, unrolled

def good(task):
    return unrolled(task)

def forgets_the_base_step(task):
    iterate, before = unrolled(task), [p.detach().clone() for p in task.model.parameters()]
    def call():
        found = iterate()
        for p, value in zip(task.model.parameters(), before):
            p.data.copy_(value)
        return found
    return call

def returns_nothing(task):
    return lambda: None

number = 3
"""


@pytest.fixture
def hook(tmp_path: Path, monkeypatch):
    (tmp_path / "other_library.py").write_text(HOOK)
    monkeypatch.syspath_prepend(tmp_path)
    yield "other_library"
    sys.modules.pop("other_library", None)


def test_a_hook_is_measured_beside_the_others(hook, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "SETTINGS", ONCE)
    monkeypatch.setattr(peers, "PEERS", {"sama": PEERS["sama"]})
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    peers.main([str(tmp_path / "peers.json"), "--peer", f"{hook}:good", "--peer", f"{hook}:returns_nothing"])
    written = read_json(tmp_path / "peers.json")
    assert written["benchmark"] == "peers" and f"--peer {hook}:good" in written["command"]
    _, good, nothing = written["rows"]
    assert good["status"] == "measured" and good["difference"] < 1e-12 and good["seconds"] > 0
    assert nothing["status"].startswith(
        f"failed: SamaError: {hook}:returns_nothing: expected the hypergradient, a tensor"
    )


def test_a_hook_that_takes_no_base_step_is_found_out(hook):
    assert difference(external(f"{hook}:good")) < 1e-12
    assert difference(external(f"{hook}:forgets_the_base_step")) > 1e-3


def test_a_hook_that_is_none(hook, tmp_path):
    (tmp_path / "broken_library.py").write_text("1 / 0")
    for reference, message in {
        "other_library": "expected module:function",
        "no_such_library:peer": "No module named 'no_such_library'",
        "broken_library:peer": "ZeroDivisionError: division by zero",
        f"{hook}:missing": "has no attribute 'missing'",
        f"{hook}:number": "expected a function of a Task, got a int",
    }.items():
        with pytest.raises(SamaError, match=f"^--peer {reference}: .*{message}"):
            external(reference)
    with pytest.raises(SystemExit, match=r"^peers: --peer other_library: expected module:function"):
        peers.main([str(tmp_path / "peers.json"), "--peer", "other_library"])


def test_an_iteration_moves_both_modules():
    task = make_task(SMALL["shape"], 4)
    before = [[p.detach().clone() for p in module.parameters()] for module in (task.model, task.network)]
    iterations(task, lambda: {n: torch.ones_like(p) for n, p in task.network.named_parameters()})()
    for module, values in zip((task.model, task.network), before, strict=True):
        assert any(not torch.equal(p, value) for p, value in zip(module.parameters(), values, strict=True))
        assert all(p.grad is None for p in module.parameters())
    assert unrolled(task)().keys() == dict(task.network.named_parameters()).keys()


def test_sama_imports_no_peer():
    listed = re.findall(r"^(\w+)==", (Path(__file__).parents[2] / "envs" / "peers.txt").read_text(), re.MULTILINE)
    assert listed == ["torchopt", "higher"]
    assert sama.__file__ is not None
    for path in Path(sama.__file__).parent.rglob("*.py"):
        assert not re.search(rf"^\s*(import|from) ({'|'.join(listed)})\b", path.read_text(), re.MULTILINE), path
