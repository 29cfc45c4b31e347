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

OF_TEXTS = {
    "measure": "macro_f1",
    "test": {
        "majority_vote": {"macro_f1": [0.5, 0.6]},
        "meta_r": {"macro_f1": [0.7, 0.65]},
        "clean_only": {"macro_f1": [0.4, 0.4]},
    },
    "noise_detection": {"meta_r": {"auc": [0.4, 0.6]}},
    "cost": {"majority_vote": [1.0, 1.0], "meta_r": [2.5, 2.5], "clean_only": [1.0, 1.0]},
}
TABLE_OF_TEXTS = """\
| method | macro F1 | ahead of majority vote (least) | AUC | cost |
|---|---|---|---|---|
| SAMA R | 67.5 ± 3.5 | +12.5 (+5.0) | 0.500 ± 0.141 | 2.50 |
| majority vote | 55.0 ± 7.1 | – | – | 1.00 |
| clean set only | 40.0 ± 0.0 | -15.0 (-20.0) | – | 1.00 |
"""


def test_tables_by_hand():
    assert record.tables(SUMMARY) == TABLES
    assert record.tables(OF_TEXTS) == TABLE_OF_TEXTS
    assert record.cell([0.25], 100, 1) == "25.0"  # one seed has no spread


def test_a_record_says_what_made_it_and_not_where(tmp_path: Path, monkeypatch, capsys):
    write_json(tmp_path / "small" / "summary.json", SUMMARY)
    config = {"data_root": str(tmp_path), "seeds": [0, 1], "model": {"name": str(tmp_path / "encoder" / "small")}}
    (tmp_path / "small" / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(tmp_path / "small" / "tuning" / "meta_r.json", {"chosen": 1})
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["record", str(tmp_path / "small"), str(out), "--command", "snakemake --cores 1"])
    record.main()
    written = read_json(out)
    assert written["summary"] == SUMMARY and written["command"] == "snakemake --cores 1"
    assert written["config"] == {"data_root": None, "seeds": [0, 1], "model": {"name": "encoder/small"}}
    assert written["tuning"] == {"meta_r": {"chosen": 1}}
    assert len(written["commit"].removesuffix("-dirty")) == 40
    assert set(written["hardware"]) == {"machine", "cores", "gpu", "torch"}
    assert str(tmp_path) not in out.read_text()
    assert capsys.readouterr().out == TABLES + "\n"


def test_the_envelope_of_a_benchmark_says_what_made_its_rows():
    made = record.envelope("throughput", "python -m benchmarks.throughput", {"unroll": 1}, [{"method": "sama"}])
    assert list(made) == ["benchmark", "command", "commit", "hardware", "settings", "rows"]
    assert len(made["commit"].removesuffix("-dirty")) == 40
    assert made["hardware"] == record.hardware() and made["rows"] == [{"method": "sama"}]
