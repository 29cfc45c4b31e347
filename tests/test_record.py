"""The record of an experiment: its tables by hand."""

from pathlib import Path

import yaml

from benchmarks import record
from sama.files import read_json, write_json

SUMMARY = {
    "experiment": "small",
    "seeds": [0, 1],
    "full": {"accuracy": [0.5, 0.7]},
    "clean": {},
    "meta": {"accuracy": [0.75, 0.75]},
    "pruned": {
        "random": {"0.3": {"accuracy": [0.4, 0.6]}, "0.5": {"accuracy": [0.3, 0.3]}},
        "meta_weight": {"0.3": {"accuracy": [0.7, 0.9]}, "0.5": {"accuracy": [0.2, 0.4]}},
    },
    "noise_detection": {"meta_weight": {"auc": [0.9, 1.0], "average_precision": [0.5, 0.6]}},
    "search_cost": {"random": [0.0, 0.0], "meta_weight": [3.5, 4.0]},
}
TABLES = """\
| score | 30 % pruned | 50 % pruned | AUC | cost |
|---|---|---|---|---|
| meta weight | 80.0 ± 14.1 | 30.0 ± 14.1 | 0.950 ± 0.071 | 3.75 |
| random | 50.0 ± 14.1 | 30.0 ± 0.0 | – | 0.00 |

Nothing pruned: all observed labels 60.0 ± 14.1; the meta-trained model 75.0 ± 0.0.
"""


def test_tables_by_hand():
    assert record.tables(SUMMARY) == TABLES
    assert record.cell([0.25], 100, 1) == "25.0"  # one seed has no spread


def test_a_record_says_what_made_it_and_not_where(tmp_path: Path, monkeypatch, capsys):
    write_json(tmp_path / "small" / "summary.json", SUMMARY)
    (tmp_path / "small" / "config.yaml").write_text(yaml.safe_dump({"data_root": str(tmp_path), "seeds": [0, 1]}))
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["record", str(tmp_path / "small"), str(out), "--command", "snakemake --cores 1"])
    record.main()
    written = read_json(out)
    assert written["summary"] == SUMMARY and written["command"] == "snakemake --cores 1"
    assert written["config"] == {"data_root": None, "seeds": [0, 1]}
    assert len(written["commit"].removesuffix("-dirty")) == 40
    assert set(written["hardware"]) == {"machine", "cores", "gpu", "torch"}
    assert str(tmp_path) not in out.read_text()
    assert capsys.readouterr().out == TABLES + "\n"
