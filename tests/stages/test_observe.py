"""The observed training: interrupted without a trace, read by several scores, charged to each; and kept lists."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from sama.bilevel import checkpoint
from sama.config import Config, validate
from sama.errors import SamaError
from sama.files import read_facts, read_json, write_parquet
from sama.scores import SCORES
from sama.stages import meta_train, observe, prepare, retrain, score, select
from sama.stages._arrays import read_array, write_arrays
from tests.stages.small_digits import DATA

RECIPE = {"steps": 25, "batch_size": 16, "log_every": 5, "checkpoint_every": 10, "augment": {"crop_padding": 1}}
CONFIG = {
    "data": DATA,
    "model": {"drop_rate": 0.3},
    "training": RECIPE,
    "scores": {
        "grand": {"models": 2, "steps": 3},
        "dyn_unc": {"window": 3},
        "tdds": {"window": 3, "epochs": 4},
        "dual": {"window": 3, "epochs": 3},
    },
    "runtime": {"device": "cpu"},
}
TRAIN = 80  # examples of the training split: five steps an epoch


def config(**changes: Any) -> Config:
    return validate({**CONFIG, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare.run(out=folder, seeds=(0, 1), data_root=None, data=config().data)
    return folder


@pytest.fixture(scope="module")
def observed(data: Path) -> Path:
    return watch(data, data / "observed")


def paths(data: Path, seed: int = 0) -> dict[str, Any]:
    return {"images": data / "images.npy", "manifest": data / f"seed{seed}" / "manifest.parquet"}


def ids_of(data: Path) -> np.ndarray:
    frame = pd.read_parquet(paths(data)["manifest"])
    return frame.loc[frame["split"] == "train", "sample_id"].to_numpy(str)


def watch(data: Path, out: Path, chosen: Config | None = None) -> Path:
    chosen = chosen or config()
    observe.run(
        **paths(data), out=out, work=out.with_name(out.name + "-work"), seed=0, model=chosen.model,
        training=chosen.training, observe=chosen.observe, runtime=chosen.runtime,
    )  # fmt: skip
    return out


def scored(data: Path, out: Path, method: str, observed: Path | None = None, chosen: Config | None = None, **more: Any):
    chosen = chosen or config()
    score.run(
        **paths(data), method=method, observed=observed, out=out, summary=out.with_suffix(".json"),
        work=out.with_name(out.stem + "-work"), seed=0, model=chosen.model, training=chosen.training,
        scores=chosen.scores, runtime=chosen.runtime, **more,
    )  # fmt: skip
    return read_json(out.with_suffix(".json"))


def selected(data: Path, scores: Path, out: Path, selection: dict[str, Any], **more: Any) -> list[str]:
    select.run(
        scores=scores, manifest=paths(data)["manifest"], ratio=0.5, out=out,
        selection=config(selection=selection).selection, **more,
    )  # fmt: skip
    return pd.read_parquet(out)["sample_id"].tolist()


class Killed(BaseException):
    """What stands for `kill -9` here."""


def test_interrupted_at_any_checkpoint_ends_byte_identical(data, observed, tmp_path, monkeypatch):
    save = checkpoint.save

    def save_and_die(path, state, key):
        save(path, state, key)
        raise Killed

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    for _ in (10, 20):
        with pytest.raises(Killed):
            watch(data, tmp_path / "killed")
        torch.manual_seed(4711)
    watch(data, tmp_path / "killed")
    names = ["dynamics.safetensors", "features.safetensors", "metrics.jsonl", "summary.json"]
    assert sorted(path.name for path in observed.iterdir()) == names
    assert all((observed / name).read_bytes() == (tmp_path / "killed" / name).read_bytes() for name in names)
    assert not (tmp_path / "killed-work").exists()


def test_what_is_observed(data, observed):
    summary = read_json(observed / "summary.json")
    assert summary["visits"] == 5  # 25 steps of 16 on 80 examples
    assert summary["cost"] == {"forward_examples": 400, "backward_examples": 400}
    names = ("probability", "margin", "divergence")
    records = [read_array(observed / "dynamics.safetensors", ids_of(data), name) for name in names]
    probability, margin, divergence = records
    assert probability.shape == margin.shape == divergence.shape == (5, TRAIN)
    assert probability.dtype == np.float32
    assert np.isfinite(margin).all()
    assert np.isfinite(divergence[1:]).all()
    assert (margin > 0)[-1].mean() > (margin > 0)[0].mean()  # it learns
    features = read_array(observed / "features.safetensors", ids_of(data), "features")
    assert len(features) == TRAIN


def test_what_is_large_can_be_left_out(data, observed, tmp_path):
    lean = watch(data, tmp_path / "lean", config(observe={"divergence": False, "features": False}))
    assert sorted(path.name for path in lean.iterdir()) == ["dynamics.safetensors", "metrics.jsonl", "summary.json"]
    with safe_open(lean / "dynamics.safetensors", "numpy") as content:
        assert sorted(content.keys()) == ["margin", "probability", "sample_id"]
    for method in ("aum", "dual"):
        scored(data, tmp_path / "whole.parquet", method, observed)
        scored(data, tmp_path / "part.parquet", method, lean)
        assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "part.parquet").read_bytes()
    with pytest.raises(SamaError, match="expected an array 'divergence', got margin, probability, sample_id"):
        scored(data, tmp_path / "s.parquet", "tdds", lean)
    with pytest.raises(SamaError, match=r"features\.safetensors: missing"):
        scored(data, tmp_path / "s.parquet", "prototype", lean)


@pytest.mark.parametrize(
    ("method", "steps", "passes"),
    [("forgetting", 25, 0), ("aum", 25, 0), ("dyn_unc", 25, 0), ("tdds", 20, 0), ("dual", 15, 0), ("prototype", 25, 1)],
)
def test_a_score_is_charged_the_part_of_the_training_that_it_reads(data, observed, tmp_path, method, steps, passes):
    made = scored(data, tmp_path / "s.parquet", method, observed)
    assert made["cost"] == {"forward_examples": steps * 16 + passes * TRAIN, "backward_examples": steps * 16}
    frame = pd.read_parquet(tmp_path / "s.parquet")
    assert frame["sample_id"].tolist() == ids_of(data).tolist()
    assert np.isfinite(frame["score"]).all()
    assert read_facts(tmp_path / "s.parquet")["hard_end"] == (SCORES[method].hard_end or "none")


def test_gradient_norms_cost_a_pass_and_a_backward(data, tmp_path):
    made = scored(data, tmp_path / "s.parquet", "grand")
    assert made["cost"] == {"forward_examples": 2 * (3 * 16 + TRAIN), "backward_examples": 2 * (3 * 16 + TRAIN)}


def test_the_key_of_a_score_follows_what_was_observed(data, observed, tmp_path):
    other = watch(data, tmp_path / "short", config(observe={"steps": 15}))
    assert read_json(other / "summary.json")["visits"] == 3
    keys = [scored(data, tmp_path / "s.parquet", "aum", folder)["content_hash"] for folder in (observed, other)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observe": {"steps": 26}}, r"observe\.steps: expected at most training\.steps = 25, got 26"),
        ({"observe": {"steps": 4}}, r"observe\.steps: 4 of 16 examples: expected the observed training to see every"),
    ],
)
def test_too_much_or_too_little_to_observe_is_refused(data, tmp_path, change, message):
    with pytest.raises(SamaError, match=message):
        watch(data, tmp_path / "out", config(**change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "knobs", "message"),
    [
        (
            "dual",
            {"window": 3, "epochs": 30},
            r"dynamics\.safetensors: has 5 whole epochs .* expected at least scores\.dual\.epochs = 30",
        ),
        ("dyn_unc", {"window": 6}, r"scores\.dyn_unc: expected a window of at most 5"),
        ("prototype", {"clusters": 81}, r"scores\.prototype: expected at most 80 clusters"),
    ],
)
def test_knobs_that_do_not_fit_the_data_are_one_line(data, observed, tmp_path, method, knobs, message):
    with pytest.raises(SamaError, match=message) as caught:
        scored(data, tmp_path / "s.parquet", method, observed, config(scores={method: knobs}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.parquet").exists()


def test_what_is_missing_or_of_other_examples_is_named(data, observed, tmp_path):
    with pytest.raises(SamaError, match="the score aum needs --observed"):
        scored(data, tmp_path / "s.parquet", "aum")
    with pytest.raises(SamaError, match="unknown score 'dynunc': expected dyn_unc"):
        scored(data, tmp_path / "s.parquet", "dynunc")
    ids = ids_of(data)
    (tmp_path / "summary.json").write_bytes((observed / "summary.json").read_bytes())
    path = tmp_path / "dynamics.safetensors"
    with pytest.raises(SamaError, match=r"dynamics\.safetensors: missing"):
        scored(data, tmp_path / "s.parquet", "aum", tmp_path)
    path.write_bytes(b"half")
    with pytest.raises(SamaError, match=r"dynamics\.safetensors: not a whole safetensors file"):
        scored(data, tmp_path / "s.parquet", "aum", tmp_path)
    write_arrays(path, ids, probability=np.zeros((5, TRAIN)))
    with pytest.raises(SamaError, match="expected an array 'margin', got probability, sample_id"):
        scored(data, tmp_path / "s.parquet", "aum", tmp_path)
    arrays = dict.fromkeys(("probability", "margin", "divergence"), np.zeros((5, TRAIN), dtype=np.float32))
    write_arrays(path, ids[::-1], **arrays)  # a re-ordered data set
    with pytest.raises(SamaError, match="its sample ids are not those of split train"):
        scored(data, tmp_path / "s.parquet", "aum", tmp_path)


def test_meta_training_with_the_loss_alone(data, tmp_path):
    chosen = config(meta={"training": {"steps": 12, "batch_size": 16}})
    frames = {}
    choices: dict[str, Any] = {"both": None, "loss": ("loss",)}
    for name, features in choices.items():
        meta_train.run(
            **paths(data), out=tmp_path / name, work=tmp_path / "work", seed=0, features=features, model=chosen.model,
            meta=chosen.meta, runtime=chosen.runtime,
        )  # fmt: skip
        frames[name] = pd.read_parquet(tmp_path / name / "weights.parquet")
    assert list(frames["loss"].columns) == ["sample_id", "weight", "loss"]
    assert list(frames["both"].columns) == ["sample_id", "weight", "loss", "uncertainty"]
    keys = {read_json(tmp_path / name / "summary.json")["content_hash"] for name in frames}
    assert len(keys) == 2
    scored(data, tmp_path / "s.parquet", "meta_weight_loss", weights=tmp_path / "loss" / "weights.parquet")
    assert pd.read_parquet(tmp_path / "s.parquet")["score"].tolist() == frames["loss"]["weight"].tolist()
    with pytest.raises(SamaError, match="its meta network saw the uncertainty"):
        scored(data, tmp_path / "s.parquet", "meta_weight_loss", weights=tmp_path / "both" / "weights.parquet")


def test_every_strategy_selects_from_a_score(data, observed, tmp_path):
    scored(data, tmp_path / "s.parquet", "aum", observed)
    features = {"features": observed / "features.safetensors"}
    chosen = {
        "global": selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "global"}),
        "stratified": selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "stratified"}),
        "d2": selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "d2"}, **features),
    }
    scored(data, tmp_path / "u.parquet", "dual", observed)
    beta = {"strategy": "beta", "beta": {"epochs": 5}}
    dynamics = {"dynamics": observed / "dynamics.safetensors"}
    chosen["beta"] = selected(data, tmp_path / "u.parquet", tmp_path / "k.parquet", beta, **dynamics)
    assert [len(ids) for ids in chosen.values()] == [40, 40, 40, 40]
    assert len({tuple(ids) for ids in chosen.values()}) == 4
    with pytest.raises(SamaError, match=r"has 5 whole epochs .* expected at least selection\.beta\.epochs = 30"):
        selected(data, tmp_path / "u.parquet", tmp_path / "k.parquet", {"strategy": "beta"}, **dynamics)
    with pytest.raises(SamaError, match="beta needs --dynamics"):
        selected(data, tmp_path / "u.parquet", tmp_path / "k.parquet", beta)
    frame = pd.read_parquet(tmp_path / "s.parquet").sort_values("score")
    hardest = set(frame["sample_id"][:8])  # AUM has its hard examples at the low end
    assert not hardest & set(chosen["stratified"])
    wide = {"strategy": "stratified", "stratified": {"hard_cutoff": 0.0, "strata": 10}}
    assert hardest & set(selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", wide))
    with pytest.raises(SamaError, match="d2 needs --features"):
        selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "d2"})


def test_scores_of_another_maker_need_not_say_where_they_are_hard_unless_it_matters(data, tmp_path):
    ids = ids_of(data)
    pd.DataFrame({"sample_id": ids, "score": np.arange(80.0)}).to_parquet(tmp_path / "s.parquet", index=False)
    kept = selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "global"})
    assert kept == ids[40:].tolist()
    assert read_facts(tmp_path / "k.parquet") == {}
    with pytest.raises(SamaError, match="does not say where its hard examples are"):
        selected(data, tmp_path / "s.parquet", tmp_path / "k.parquet", {"strategy": "stratified"})


def retrained(data: Path, kept: Path, out: Path, seed: int = 0) -> bytes:
    chosen = config(training={**RECIPE, "steps": 3})
    retrain.run(
        **paths(data, seed), kept=kept, cell="x", out=out, work=out.with_name("work"), seed=seed, model=chosen.model,
        training=chosen.training, retrain=chosen.retrain, runtime=chosen.runtime,
    )  # fmt: skip
    return (out / "model.safetensors").read_bytes()


def test_a_kept_list_of_other_data_is_refused_and_its_order_changes_nothing(data, tmp_path):
    scored(data, tmp_path / "s.parquet", "random")
    kept = tmp_path / "kept.parquet"
    selected(data, tmp_path / "s.parquet", kept, {"strategy": "global"})
    model = retrained(data, kept, tmp_path / "out")
    with pytest.raises(SamaError, match=r"kept\.parquet: made for other data \(content hash \w{12}….*seed1") as caught:
        retrained(data, kept, tmp_path / "other", seed=1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "other").exists()
    frame = pd.read_parquet(kept)
    frame[::-1].to_parquet(tmp_path / "turned.parquet", index=False)  # a list of another maker has no hash
    assert retrained(data, tmp_path / "turned.parquet", tmp_path / "turned") == model


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (lambda ids: [ids[3], ids[5], ids[3]], r"kept id (\S+) stands 2 times, expected once"),
        (lambda ids: [], r"kept\.parquet: keeps no example"),
    ],
)
def test_a_kept_list_with_repeated_ids_or_none_is_refused(data, tmp_path, ids, message):
    write_parquet(tmp_path / "kept.parquet", pd.DataFrame({"sample_id": ids(ids_of(data))}, dtype=str))
    with pytest.raises(SamaError, match=message):
        retrained(data, tmp_path / "kept.parquet", tmp_path / "out")
