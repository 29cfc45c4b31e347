"""What nobody can measure is refused in one line, before anything is measured."""

import pytest
import torch

from benchmarks import peers, scaling, slow_link, throughput

SMALL = ["--shapes", "bert_2x128", "--examples", "2", "--length", "8", "--methods", "sama"]


@pytest.mark.parametrize("option", ["--rounds", "--unroll", "--examples", "--length", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_a_count_is_positive(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit):
        throughput.main([str(tmp_path / "out.json"), *SMALL, option, value])
    message = f"argument {option}: expected a whole number from 1 on, got {value}"
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


@pytest.mark.parametrize("benchmark", [throughput, scaling, peers])
def test_no_gpu(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark.main([str(tmp_path / "out.json"), "--device", "cuda"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("argument --device: cuda: no GPU was found here")


@pytest.mark.parametrize("benchmark", [throughput, scaling, slow_link, peers])
@pytest.mark.parametrize("place", [".", "file/out.json"])
def test_no_place_to_write_to(benchmark, place, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        benchmark.main([str(tmp_path / place)])
    assert "argument out: " in capsys.readouterr().err.splitlines()[-1]


def test_a_table_without_what_plain_training_needs():
    """Memory sufficed for the method alone: absolute figures, no ratios."""
    cell = throughput.Cell("bert_2x128", 2, 8, 1)
    own = throughput.Found([0.5], parameters=10, flops=100, resident=1000, above=1000)
    table = throughput.shown([throughput.row(cell, "sama", own, throughput.Found())])
    assert "| sama | fused | 0.5 | 4 |  |  | 0.0 |  |" in table
