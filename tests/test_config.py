"""The configuration: strict, described, merged like Snakemake merges, and its generated files up to date."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from snakemake.utils import update_config

from sama.config import (
    Config,
    DataConfig,
    MetaConfig,
    MethodOptions,
    ScoresConfig,
    SelectionConfig,
    TextsConfig,
    dump_yaml,
    json_schema,
    load,
    merge,
    over_default,
    validate,
    validate_any,
)
from sama.errors import SamaError

ROOT = Path(__file__).resolve().parent.parent


def sections(model: type[BaseModel] = Config) -> list[type[BaseModel]]:
    inner = [f.annotation for f in model.model_fields.values() if isinstance(f.annotation, type)]
    return [model, *(s for m in inner if issubclass(m, BaseModel) for s in sections(m))]


@pytest.mark.parametrize("section", dict.fromkeys(sections() + sections(TextsConfig)), ids=lambda s: s.__name__)
def test_every_field_is_described_and_every_section_is_frozen_and_strict(section):
    assert all(field.description for field in section.model_fields.values())
    assert section.model_config.get("frozen") is True
    assert section.model_config.get("extra") == "forbid"


def test_the_committed_schema_is_the_models():
    committed = (ROOT / "config" / "schema.json").read_text(encoding="utf-8")
    assert committed == json_schema(), "run `sama config schema --output config/schema.json`"
    schema = json.loads(committed)
    assert schema["$schema"].endswith("2020-12/schema")
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values())


def test_dumped_configuration_loads_again(tmp_path):
    config = validate({"seeds": [3], "data": {"noise": {"kind": "symmetric", "rate": 0.25}}})
    (tmp_path / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
    assert load([tmp_path / "config.yaml"]) == config


def test_overlays_merge_as_snakemake_merges():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 4, "e": {"f": 1}}
    overlay = {"a": {"c": [3]}, "d": {"x": 1}, "e": 2}
    theirs = json.loads(json.dumps(base))
    update_config(theirs, overlay)
    assert merge(base, overlay) == theirs == {"a": {"b": 1, "c": [3]}, "d": {"x": 1}, "e": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"metta": {}}, r"unknown key metta \(did you mean meta\?\)"),
        (
            {"meta": {"network": {"hiden_size": 3}}},
            r"unknown key meta.network.hiden_size \(did you mean hidden_size\?\)",
        ),
        ({"data": {"zzz": 1}}, r"unknown key data.zzz \(known here: source, path"),
        (
            {"selection": {"pruning_ratios": [0.3, 1.0]}},
            r"selection.pruning_ratios.1: Input should be less than 1, got 1.0",
        ),
        ({"selection": {"pruning_ratios": [0.3, 0.3]}}, "expected distinct ratios, got 0.3, 0.3"),
        ({"data": {"source": "digit"}}, r"data.source: unknown 'digit' \(did you mean digits\?\)"),
        (
            {"selection": {"strategy": 7}},
            r"strategy: unknown 7 \(expected 'global', 'class_balanced', 'stratified', 'd2' or 'beta'\)",
        ),
        (
            {"scores": {"methods": ["random", "dynunc"]}},
            r"scores.methods.1: unknown 'dynunc' \(did you mean dyn_unc\?\)",
        ),
        (
            {"scores": {"methods": ["el2n_r"]}},
            r"scores.methods.0: unknown 'el2n_r' \(did you mean el2n or el2n_reversed\?\)",
        ),
        (
            {"scores": {"methods": ["tdds"]}, "observe": {"divergence": False}},
            "observe.divergence is false, and scores.methods has tdds, which reads it: set it to true",
        ),
        (
            {"scores": {"methods": ["prototype"]}, "observe": {"features": False}},
            "observe.features is false, and scores.methods has prototype, .* or name a scores.prototype.encoder",
        ),
        (
            {"selection": {"strategy": "d2"}, "observe": {"features": False}},
            "observe.features is false, and selection.strategy is d2, which reads them",
        ),
        (
            {"selection": {"strategy": "beta"}, "scores": {"methods": ["dual", "aum"]}},
            "selection.strategy beta draws in proportion to scores of at least 0, and scores.methods has aum",
        ),
        ({"scores": {"prototype": {"encoder_weights": "w.pth"}}}, "encoder_weights is given without the encoder"),
        ({"seeds": [1, 1]}, "seeds: expected distinct seeds, got 1, 1"),
        ({"seeds": [-1]}, r"expected seeds in 0\.\.2147483647, got -1"),
        ({"data": {"noise": {"kind": "none", "rate": 0.3}}}, "kind 'none' does not go with rate 0.3"),
        ({"meta": {"network": {"features": ["loss", "loss"]}}}, "expected distinct features, got loss, loss"),
        ({"meta": {"alpha": float("nan")}}, "meta.alpha"),
        (
            {"training": {"schedule": "step"}},
            r"training: schedule 'step' does not go with milestones \[\]: .* at least",
        ),
        ({"training": {"milestones": [0.5]}}, r"training: schedule 'cosine' does not go with milestones \[0.5\]"),
        (
            {"meta": {"training": {"schedule": "step", "milestones": [0.6, 0.3]}}},
            r"meta.training: milestones: expected ascending fractions of the steps, got \[0.6, 0.3\]",
        ),
        ({"training": {"schedule": "step", "milestones": [0.3, 0.3]}}, r"expected ascending .* got \[0.3, 0.3\]"),
        ({"training": {"schedule": "step", "milestones": [40]}}, "training.milestones.0: .* less than 1, got 40"),
        ({"training": {"decay_factor": 1.0}}, "training.decay_factor: .* less than 1, got 1.0"),
        ({"retrain": {"budget": "epoch"}}, r"retrain.budget: unknown 'epoch' \(did you mean epochs"),
        (
            {"meta": {"method": "cg", "options": {"inner_steps": 2, "iterations": 3}}},
            "meta.options: cg has no knob inner_steps: expected any of iterations, tolerance, regularization$",
        ),
        ({"meta": {"method": "itd", "options": {"displace": False}}}, "meta.options: itd has no knob displace: expec"),
        ({"meta": {"method": "cg", "options": {"iterations": 0}}}, "meta.options: cg needs iterations >= 1, got 0"),
        ({"meta": {"options": {"iteration": 3}}}, r"unknown key meta.options.iteration \(did you mean iterations\?\)"),
        (
            {"meta": {"options": {"difference": "onesided"}}},
            r"meta.options.difference: unknown 'onesided' \(did you mean one_sided\?\)",
        ),
        ({"meta": {"options": {"displace": "maybe"}}}, "meta.options.displace: .* valid boolean, got 'maybe'"),
        ({"meta": {"method": "itd", "options": {"inner_steps": True}}}, "options.inner_steps: .* integer, got True"),
        ({"meta": {"method": "neumann", "options": {"iterations": -1}}}, "options.iterations: .* got -1"),
        ({"meta": {"method": "neumann", "options": {"learning_rate": 0}}}, "options.learning_rate: .* got 0"),
        ({"meta": {"method": "exact", "options": {"limit": 0}}}, "options.limit: .* got 0"),
        ({"meta": {"method": "cg", "options": {"tolerance": -1.0}}}, "options.tolerance: .* got -1.0"),
        ({"meta": {"method": "exact", "options": {"regularization": float("inf")}}}, "regularization: .* got inf"),
        ({"experiment": "My Experiment"}, "experiment: String should match pattern"),
    ],
)
def test_a_wrong_key_or_value_is_one_line_that_names_it(values, message):
    with pytest.raises(SamaError, match=message) as caught:
        validate(values, where="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


GRID = [{"training": {"steps": 100}}, {"training": {"steps": 200}}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"finetuning": {"methods": ["meta_r", "meta_r"]}}, "expected distinct methods, got meta_r, meta_r"),
        ({"finetuning": {"methods": ["metar"]}}, r"unknown 'metar' \(did you mean meta_r"),
        ({"model": {"hidden_size": 10, "heads": 4}}, "expected a hidden_size that heads divide, got 10 and 4"),
        (
            {"tuning": {"grids": {"default": GRID, "meta_r": GRID[:1]}}},
            "tuning.grids: expected as many candidates for every method, got majority_vote 2, .* meta_r 1, meta_rc 2",
        ),
        ({"tuning": {"grids": {"default": []}}}, "tuning.grids: default: expected at least one candidate, got none"),
        ({"tuning": {"grids": {"default": [{"data": {}}]}}}, "expected keys of training, meta, finetuning, got data"),
        ({"tuning": {"grids": {"meta": GRID}}}, r"tuning.grids.meta.*: unknown 'meta' \(did you mean meta_r"),
        ({"tuning": {"seeds": [1, 7], "grids": {"default": GRID}}}, "expected none of the reported seeds, got 1"),
        (
            {"tuning": {"grids": {"default": [{"training": {"stepz": 1}}, {}]}}},
            r"tuning.grids: majority_vote: unknown key training.stepz \(did you mean steps\?\)",
        ),
        ({"meta": {"unroll_steps": 500}}, "unroll_steps = 500 are more than the 400 training.steps"),
        ({"scores": {}}, r"unknown key scores \("),
    ],
)
def test_a_wrong_key_of_an_experiment_on_texts_is_one_line_that_names_it(values, message):
    with pytest.raises(SamaError, match=message) as caught:
        validate_any({"workload": "texts", **values}, where="my.yaml")
    assert str(caught.value).startswith("my.yaml: ")
    assert "\n" not in str(caught.value)


def test_grids_of_methods_that_are_not_compared_do_not_matter_and_null_tunes_nothing(monkeypatch):
    monkeypatch.chdir(ROOT)
    overlay = {"workload": "texts", "finetuning": {"methods": ["finetune", "tapt"]}}
    config = validate_any(over_default({**overlay, "tuning": {"grids": {"meta_rc": GRID * 3}}}))
    assert isinstance(config, TextsConfig)
    assert len(config.tuning.candidates("tapt")) == 2
    config = validate_any(over_default({**overlay, "tuning": {"grids": None}}))
    assert isinstance(config, TextsConfig)
    assert (config.tuning.grids, config.tuning.candidates("tapt")) == ({}, ({},))


def test_a_workload_has_a_default_of_its_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert validate_any(over_default({"seeds": [3]})).experiment == "digits_pruning"
    texts = validate_any(over_default({"workload": "texts", "seeds": [3]}))
    assert (texts.experiment, texts.seeds) == ("synthetic_texts", (3,))
    with pytest.raises(SamaError, match=r"workload: unknown 'text' \(expected image_pruning or texts\)"):
        over_default({"workload": "text"})
    with pytest.raises(SamaError, match="workload: expected image_pruning here, got texts"):
        validate({"workload": "texts"})


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1\n", "expected a mapping of keys, got list")]
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SamaError, match=message) as caught:
        load([path])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(SamaError, match="cannot be read"):
        load([tmp_path / "absent.yaml"])


def test_what_no_chosen_method_reads_need_not_be_observed():
    lean = {"divergence": False, "features": False}
    assert not validate({"scores": {"methods": ["aum", "dual"]}, "observe": lean}).observe.divergence
    encoded = {"methods": ["prototype"], "prototype": {"encoder": "test_resnet"}}
    assert not validate({"scores": encoded, "observe": lean}).observe.features


def test_the_choices_are_the_registries():
    from sama.data.sources import SOURCES
    from sama.hypergradient import METHODS
    from sama.scores import SCORES
    from sama.selection import STRATEGIES

    def choices(section: type[BaseModel], field: str) -> set[str]:
        return set(re.findall(r"'(\w+)'", str(section.model_fields[field].annotation)))

    assert choices(MetaConfig, "method") == set(METHODS)
    assert choices(ScoresConfig, "methods") == set(SCORES)
    assert choices(SelectionConfig, "strategy") == set(STRATEGIES)
    assert choices(DataConfig, "source") == set(SOURCES)


def test_every_knob_of_every_method_has_a_name_here():
    from typing import get_args

    from sama.config.meta import KNOBS
    from sama.hypergradient import METHODS, knobs_of
    from sama.hypergradient.difference import Difference

    assert {name: set(knobs) for name, knobs in KNOBS.items()} == {n: set(knobs_of(n)) - {"alpha"} for n in METHODS}
    assert {knob for knobs in KNOBS.values() for knob in knobs} == set(MethodOptions.model_fields)
    choices = re.findall(r"'(\w+)'", str(MethodOptions.model_fields["difference"].annotation))
    assert choices == list(get_args(Difference))


def test_a_method_changes_without_clearing_the_knobs_of_another(tmp_path):
    """Knobs that are not set are written as null: what a merged configuration says does not stand in the way."""
    (tmp_path / "config.yaml").write_text(dump_yaml(validate({})), encoding="utf-8")
    (tmp_path / "overlay.yaml").write_text("meta: {method: cg, options: {tolerance: 1e-8}}", encoding="utf-8")
    options = load([tmp_path / "config.yaml", tmp_path / "overlay.yaml"]).meta.options
    assert options.given() == {"tolerance": 1e-8}


def test_the_committed_default_says_nothing_unknown():
    content = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    assert set(content) <= set(Config.model_fields)


def test_there_is_a_meta_step():
    with pytest.raises(SamaError, match=r"meta: unroll_steps = 500 are more than the 400 training\.steps"):
        validate({"meta": {"unroll_steps": 500, "training": {"steps": 400}}})
    with pytest.raises(SamaError, match=r"meta\.unroll_steps"):
        validate({"meta": {"unroll_steps": True}})
