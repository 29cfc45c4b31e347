"""Every method has a complete row beside plain training of the same run; rows become a page and the README's tables."""

import gc
import re
import resource
from pathlib import Path

import pytest

from benchmarks import page, readme, tables
from benchmarks.iteration import METHODS, PLAIN, PLAIN_MATH, Cell, Iteration, Setting
from benchmarks.memory import LiveBytes
from benchmarks.record import envelope
from benchmarks.throughput import MEASURED, cells, main, measure, parse
from sama.errors import SamaError
from sama.files import read_json
from sama.hypergradient import METHODS as REGISTERED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rows():
    found = []
    for cell in cells(["bert_2x128", "test_resnet"], [2], [1, 2], 32):
        found += measure(cell, list(METHODS), Setting(), rounds=1)
    return found


def test_every_registered_method_has_a_complete_row(rows):
    assert {method for method, _ in METHODS.values()} == {PLAIN, *REGISTERED} - {"exact"}  # a dense solve
    for (shape, _), own in tables.groups(rows, "shape", "unroll").items():
        labels = [label for label in METHODS if shape != "test_resnet" or label != PLAIN_MATH]
        assert [row["method"] for row in own] == labels
        assert all(row["status"] == "ok" for row in own)
        assert all(row[column] is not None for row in own for column in MEASURED), own


def test_ratios_are_those_of_the_same_run(rows):
    for own in tables.groups(rows, "shape", "unroll").values():
        (plain,) = (row for row in own if row["method"] == PLAIN)
        assert (
            plain["time_ratio"] == plain["flops_ratio"] == plain["memory_ratio"] == 1
            and not plain["copies_above_plain"]
        )
        for row in own:
            assert row["time_ratio"] == pytest.approx(row["seconds"] / plain["seconds"])  # one round
            assert row["flops_ratio"] == pytest.approx(row["flops"] / plain["flops"])
            above = row["peak_bytes"] - plain["peak_bytes"]
            assert row["copies_above_plain"] == pytest.approx(above / (4 * row["parameters"]))
            assert row["samples_per_second"] == pytest.approx(2 * row["unroll"] / row["seconds"])


def test_operations_are_what_the_algorithm_says(rows):
    at = {(row["shape"], row["unroll"], row["method"]): row["flops_ratio"] for row in rows}
    for k in (1, 2):
        assert at["bert_2x128", k, "sama"] == pytest.approx((3 * k + 5) / (3 * k), rel=0.01)
        assert at["bert_2x128", k, "sama, one-sided"] == pytest.approx((3 * k + 4) / (3 * k), rel=0.01)


def test_attention_is_named(rows):
    kernels = {row["method"]: row["attention"] for row in rows if row["shape"] == "bert_2x128"}
    for method in ("neumann, 3 iterations", "cg, 3 iterations", "itd, 1 step", "sama, forward mode"):
        assert kernels.pop(method) == "fused + math"
    assert kernels.pop(PLAIN_MATH) == "math"
    assert set(kernels.values()) == {"fused"}
    assert {row["attention"] for row in rows if row["shape"] == "test_resnet"} == {"none"}


@pytest.mark.parametrize("label", [PLAIN, "sama", "cg, 3 iterations"])
def test_between_iterations_nothing_lives_but_what_is_resident(label):
    """On CUDA the peak is what the allocator has above what was alive before: old gradients there would be left out."""
    with LiveBytes() as counter:
        iteration = Iteration(label, Cell("bert_2x128", 2, 8, 1), Setting())
        iteration.warm_up()
        gc.collect()
        live = counter.live
    assert 0 <= live - iteration.resident < 1000  # the states of the meta optimizer
    assert iteration.resident > 12 * iteration.parameters  # and those of the base optimizer were counted


def test_out_of_memory_is_a_row_that_says_so():
    found = measure(Cell("bert_2x128", 2**46, 8, 1), [PLAIN, "sama"], Setting(), rounds=1)
    assert [(row["method"], row["status"], row["seconds"]) for row in found] == [
        (PLAIN, "out of memory", None),
        ("sama", "out of memory", None),
    ]
    made = envelope("throughput", "…", {"optimizer": "AdamW", "dropout": 0.0}, found)
    assert "out of memory" in tables.throughput_cell(found).rows[1][2].text + str(tables.throughput(made).rows)


def test_an_error_that_is_none_of_memory_is_not_hidden():
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        measure(Cell("bert_2x128", 2, 5000, 1), [PLAIN], Setting(), rounds=1)  # more positions than the model has


def test_a_length_that_a_model_cannot_take_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out.json"), "--shapes", "test_resnet", "bert_2x128", "--length", "513"])
    assert "--length: bert_2x128 takes texts of at most 512 tokens, got 513" in capsys.readouterr().err
    assert parse([str(tmp_path / "out.json"), "--shapes", "roberta_large", "--length", "512"]).length == 512


def test_one_variable_is_varied_at_a_time():
    found = cells(["bert_2x128", "test_resnet"], [8, 2], [1, 5], None)
    assert found == [
        Cell("bert_2x128", 8, 32, 1),
        Cell("bert_2x128", 8, 32, 5),
        Cell("bert_2x128", 2, 32, 1),
        Cell("test_resnet", 8, 32, 1),
    ]


def test_what_was_typed_is_written_beside_the_rows(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    out = tmp_path / "out.json"
    typed = [
        str(out),
        "--shapes",
        "bert_2x128",
        "--examples",
        "2",
        "--length",
        "8",
        "--rounds",
        "1",
        "--methods",
        "sama",
    ]
    try:
        main(typed)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    made = read_json(out)
    assert made["benchmark"] == "throughput" and made["command"].startswith("python -m benchmarks.throughput ")
    assert [row["method"] for row in made["rows"]] == [PLAIN, "sama"]
    assert made["settings"]["optimizer"] == "AdamW"


def imported(name: str) -> set[str]:
    """Modules of benchmarks/ that measure, among those that `name` imports, itself included."""
    text = (ROOT / f"benchmarks/{name}.py").read_text()
    found = set(re.findall(r"^ *from benchmarks\.(\w+) import", text, re.M))
    for names in re.findall(r"^ *from benchmarks import (.+)$", text, re.M):
        found |= set(names.split(", "))
    return {name}.union(*(imported(other) for other in found - {"arguments", "record"}))


@pytest.mark.parametrize("name", ["throughput", "scaling", "slow_link", "peers"])
def test_a_benchmark_runs_anew_where_code_that_measures_changed(name):
    rules = (ROOT / "workflow/rules/benchmark.smk").read_text()
    rule = rules.split(f"rule benchmark_{name}:")[1].split("output:")[0]
    assert set(re.findall(r'"benchmarks/(\w+)\.py"', rule)) == imported(name)


def test_the_page_is_self_contained_and_shows_every_benchmark(rows, tmp_path):
    settings = {"optimizer": "AdamW", "dropout": 0.0}
    kept = next(record for record in readme.records() if record["benchmark"] == "peers")
    of_peers = [{**row, "peer": "some <library>"} if row["peer"] == "higher" else row for row in kept["rows"]]
    records = [
        envelope("throughput", "python -m benchmarks.throughput", settings, rows),
        envelope("peers", "python -m benchmarks.peers", kept["settings"], of_peers),
    ]
    page.build(tmp_path / "one", records, "files")
    page.build(tmp_path / "two", records, "files")
    html = (tmp_path / "one/index.html").read_text()
    assert html == (tmp_path / "two/index.html").read_text()
    assert set(re.findall(r'(?:src|href)="(\w+:[^"]{6})', html)) <= {"data:image/", "https://arxi"}
    assert "some &lt;library&gt;" in html and "python -m benchmarks.peers" in html
    for label in METHODS:
        assert f"<td>{label}</td>" in html, label
    drawn = {path.stem for path in (tmp_path / "one/figures").glob("*.svg")}
    assert drawn == {"ratios", "time", "memory", "peers"}


def test_the_readme_has_the_tables_of_the_records_that_are_kept(tmp_path):
    kept = readme.records()
    assert [record["benchmark"] for record in kept] == ["throughput", "throughput", "peers", "scaling", "slow_link"]
    text = (ROOT / "README.md").read_text()
    assert f"{readme.START}\n{readme.block(kept)}\n{readme.END}" in text, "run python -m benchmarks.readme"
    (tmp_path / "README.md").write_text("no block")
    with pytest.raises(SamaError, match="expected a block between"):
        readme.renew(tmp_path / "README.md", kept)
