"""The reductions that are compared give the same hypergradient where they should; the link leaves nothing behind."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks import namespaces, slow_link
from benchmarks.processes import run
from benchmarks.workload import Shape, make_loop, parameter_bytes, texts
from sama.errors import SamaError

SMALL = Shape(width=8, layers=1, tokens=4, vocabulary=20, heads=2, meta_width=4)
WHY = namespaces.refusal() if sys.platform.startswith("linux") else "network namespaces need Linux"
needs_namespaces = pytest.mark.skipif(WHY is not None, reason=f"no network namespaces: {WHY}")


def hypergradients(alpha: float, shared: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """In each process: candidate -> what the meta optimizer is given; all processes have the `shared` batches alike."""
    group = dist.group.WORLD
    assert group is not None
    found = {}
    for name in ("overlapped", "afterwards", "each_pass"):
        loop = slow_link.make(name, SMALL, 4, group, dtype=torch.float64)
        loop.alpha = alpha
        for number, level in enumerate(("batches", "meta_batches")):
            own = 0 if level in shared else 1 + group.rank()
            setattr(loop, level, itertools.repeat(texts(SMALL, 4, 10 * number + own)))
        given: list[torch.Tensor] = []
        loop.meta_optimizer.register_step_pre_hook(
            lambda optimizer, *_, given=given: given.extend(
                p.grad.clone() for group in optimizer.param_groups for p in group["params"]
            )
        )
        loop.step()
        found[name] = torch.cat([value.flatten() for value in given])
    return found


def three_cases() -> list[dict[str, torch.Tensor]]:
    return [hypergradients(0.1, ("meta_batches",)), hypergradients(1e-3, ("batches",)), hypergradients(0.1, ())]


def test_the_reductions_give_one_hypergradient_where_the_product_is_one():
    """With one v everywhere; to O(ε²) with one H everywhere; not with neither: v is each process's own in SAMA."""
    (same_v, same_h, neither), others = run(2, three_cases)
    torch.testing.assert_close(same_v["each_pass"], same_v["overlapped"], rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(same_h["each_pass"], same_h["overlapped"], rtol=1e-4, atol=1e-9)
    assert (neither["each_pass"] - neither["overlapped"]).norm() > 1e-3 * neither["overlapped"].norm()
    for case, other in zip((same_v, same_h, neither), others, strict=True):
        torch.testing.assert_close(case["afterwards"], case["overlapped"], rtol=0, atol=0)
        assert all(torch.equal(case[name], other[name]) for name in case)


@needs_namespaces
def test_bytes_on_the_link():
    settings = {"shape": SMALL, "examples": 2, "repeats": 2, "steps": 1, "megabits": (50, None)}
    rows = slow_link.measured(settings)
    assert [(row["megabits_per_second"], row["reduction"]) for row in rows] == [
        (rate, name) for rate in (50, None) for name in slow_link.CANDIDATES
    ]
    loop = make_loop(SMALL, 1)
    theta, lam = parameter_bytes(loop.base), parameter_bytes(loop.meta)
    for plain, overlapped, afterwards, each_pass in (rows[:4], rows[4:]):
        assert plain["meta_step_bytes"] == 0
        assert overlapped["meta_step_bytes"] == afterwards["meta_step_bytes"] == lam
        assert each_pass["meta_step_bytes"] == theta + 3 * lam
        assert plain["sent_bytes"] > plain["step_bytes"] > theta  # two processes: as much is sent as is reduced
        assert each_pass["sent_bytes"] - overlapped["sent_bytes"] > theta
    assert left() == []


def left(owner: int | None = None) -> list[str]:
    """Namespaces of that process, or of this one."""
    return [path.name for path in Path("/run/netns").glob(f"{namespaces.PREFIX}{owner or os.getpid()}-*")]


@needs_namespaces
def test_namespaces_go_with_the_block():
    with pytest.raises(KeyError), namespaces.linked() as names:
        assert sorted(left()) == names
        namespaces.shape(names, 100)
        told = subprocess.run(
            ["tc", "-n", names[1], "qdisc", "show"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PATH": namespaces.PATH},
        )
        assert "tbf" in told.stdout and "rate 100Mbit" in told.stdout
        raise KeyError
    assert left() == []


@needs_namespaces
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_namespaces_go_with_their_process(number):
    """After SIGKILL those of the next run take them along."""
    code = (
        "import time; from benchmarks import namespaces\nwith namespaces.linked(): print(flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(left(process.pid)) == 2
        process.send_signal(number)
    if number == signal.SIGKILL:
        assert len(left(process.pid)) == 2
        with namespaces.linked():
            pass
    assert left(process.pid) == []


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(namespaces, "PATH", str(tmp_path))
    assert namespaces.refusal() == "network namespaces need ip and tc, of the package iproute2: not found here"
    for tool in ("ip", "tc"):
        (tmp_path / tool).write_text("#!/bin/sh\necho it is forbidden >&2; exit 1\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces.refusal() == "network namespaces need root: this process runs as another user"
    out = tmp_path / "slow_link.json"
    with pytest.raises(SystemExit, match=r"^slow_link: network namespaces need root"):
        slow_link.main([str(out)])
    assert not out.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SamaError, match=r"`ip netns add sama-link-\S+` was refused: it is forbidden"):
        slow_link.measured(slow_link.SETTINGS)
    slow_link.main([str(out), "--optional"])
    assert '"rows": []' in out.read_text()
    assert "was refused: it is forbidden" in out.read_text()
    assert capsys.readouterr().err.startswith("slow_link: left out: `ip netns add")
