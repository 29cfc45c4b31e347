"""What each method of finetuning gives its phases to train on: labels, losses, steps, hypergradient method."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from sama.config import TextsConfig
from sama.data import text_manifest
from sama.data.text_manifest import TextDataset
from sama.finetuning import METHODS, base, meta, self_training
from tests.stages.small_texts import CONFIG, config, finetuned, prepared

CPU = torch.device("cpu")
ROWS = torch.arange(4)
WIRING: dict[str, list[tuple[str, str, int]]] = {  # of each phase: labels, loss, steps
    "majority_vote": [("majority_vote", "task", 12)],
    "dawid_skene": [("dawid_skene", "task", 12)],
    "clean_only": [("clean", "task", 12)],
    "weak_then_clean": [("weak", "task", 9), ("clean", "task", 3)],
    "self_training": [("weak", "task", 5), ("pseudo", "pseudo", 4), ("pseudo", "pseudo", 3)],
    "meta_r": [("weak", "sama reweighting", 12)],
    "meta_r_na": [("weak", "sama_na reweighting", 12)],
    "meta_rc": [("weak", "sama correction", 12)],
    "finetune": [("weak", "task", 12)],
    "tapt": [("weak", "masked", 6), ("weak", "task", 12)],
    "multitask": [("weak", "0.3 multitask", 12)],
    "meta_auxiliary": [("weak", "sama multitask", 12)],
}
KNOBS = {"threshold": 0.01, "smoothness": 0.2, "contrast": 3.0, "margin": 0.7}
FINETUNING = {
    **CONFIG["finetuning"], "clean_share": 0.25, "auxiliary_weight": 0.3, "self_training": {"rounds": 2, **KNOBS},
}  # fmt: skip
META = {**CONFIG["meta"], "alpha": 0.3, "options": {"displace": True}, "accumulate": 2, "clip_norm": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("texts"), seeds=(0,))


def settings(aggregation: str) -> TextsConfig:
    return config(data={**CONFIG["data"], "aggregation": aggregation}, finetuning=FINETUNING, meta=META)


def of_task(model: Any, inputs: Any, labels: Tensor) -> Tensor:
    """The loss of each text."""
    return cross_entropy(model(inputs), labels, reduction="none")


def of_masked(model: Any, inputs: Any) -> Tensor:
    """The mean loss of the masked tokens of each text."""
    rows = zip(model(inputs, "auxiliary"), inputs["masked_labels"], strict=True)
    return torch.stack([cross_entropy(logits, labels) for logits, labels in rows])


def representation(model: Any, inputs: Any) -> Tensor:
    return model.model.bert(**inputs).pooler_output


def of_phase(kind: str, model: Any, inputs: Any, labels: Tensor) -> Tensor:
    """The loss of a batch of ordinary training."""
    if kind == "task":
        return of_task(model, inputs, labels).mean()
    if kind == "masked":
        return of_masked(model, inputs).mean()
    if kind == "pseudo":
        knobs = {name: value for name, value in KNOBS.items() if name != "threshold"}
        return self_training.losses(model(inputs), representation(model, inputs), labels, **knobs)
    weight = float(kind.split()[0])
    return of_task(model, inputs["task"], labels).mean() + weight * of_masked(model, inputs["masked"]).mean()


def of_meta_phase(kind: str, model: Any, network: Any, inputs: Any, labels: Tensor, of_network: Any) -> Tensor:
    """The loss of a batch of the base level, with the meta network at `of_network`."""
    if kind == "correction":
        log_p = model(inputs).log_softmax(-1)
        features = (log_p, representation(model, inputs), labels)
        weights, corrected = functional_call(network, of_network, features)
        return (weights / weights.mean() * -(corrected * log_p).sum(-1)).mean()
    losses = of_task(model, inputs, labels) if kind == "reweighting" else of_masked(model, inputs["masked"])
    weights = functional_call(network, of_network, (losses[:, None],))
    if kind == "reweighting":
        return (weights / weights.mean() * losses).mean()
    return of_task(model, inputs["task"], labels).mean() + (weights * losses).mean()


@dataclass
class Watch:
    """Compares what phases are given with the table, one phase after another."""

    dataset: TextDataset
    weak: str
    expected: Iterator[tuple[str, str, int]]

    def labels(self, kind: str, model: Any, examples: Any) -> Tensor:
        if kind == "clean":
            return torch.tensor(self.dataset.split("meta").clean_label)
        if kind == "pseudo":
            inputs = examples.begin(torch.arange(len(examples)), CPU)()
            return self_training.pseudo_labels(model(inputs).softmax(-1), KNOBS["threshold"])
        name = self.weak if kind == "weak" else kind
        return torch.from_numpy(self.dataset.split("train").weak[name]).float()

    @torch.no_grad()
    def phase(self, model: Any, examples: Any, recipe: Any, objective: Any, validation: Any) -> None:
        labels, loss, steps = next(self.expected)
        model.eval()
        torch.testing.assert_close(examples.labels, self.labels(labels, model, examples), rtol=1e-4, atol=1e-5)
        inputs = examples.begin(ROWS, CPU, None, torch.Generator().manual_seed(0))()
        found = objective(model, inputs, examples.labels[ROWS])[0]
        torch.testing.assert_close(found, of_phase(loss, model, inputs, examples.labels[ROWS]))
        assert (recipe.steps, recipe.warmup_steps) == (steps, round(steps / 6))
        assert (validation is None) == (loss == "masked")
        model.train()

    @torch.no_grad()
    def meta_phase(
        self, program: Any, model: Any, network: Any, examples: Any, meta_set: Any, recipe: Any, knobs: Any, batch: Any
    ) -> None:
        labels, described, steps = next(self.expected)
        method, loss = described.split()
        torch.testing.assert_close(examples.labels, self.labels(labels, model, examples))
        torch.testing.assert_close(meta_set.labels, self.labels("clean", model, meta_set))
        assert (knobs.method, knobs.options.given(), recipe.steps) == (method, {"displace": True}, steps)
        for name in ("alpha", "unroll_steps", "learning_rate", "batch_size", "accumulate", "clip_norm"):
            assert getattr(knobs, name) == META[name]
        model.eval()
        inputs = examples.begin(ROWS, CPU, None, torch.Generator().manual_seed(0))()
        targets = examples.labels[ROWS]
        given = batch(inputs, targets, ROWS)
        generator = torch.Generator().manual_seed(1)
        other = {name: torch.randn(p.shape, generator=generator) for name, p in network.named_parameters()}
        found = program.base_loss(dict(model.named_parameters()), other, given)
        torch.testing.assert_close(found, of_meta_phase(loss, model, network, inputs, targets, other))
        if loss == "multitask":
            torch.testing.assert_close(network(torch.rand(4, 1)), torch.ones(4))  # as unweighted, to begin with
        model.train()


@pytest.mark.parametrize("method", METHODS)
def test_phases_are_given_what_the_method_is_named_after(data, tmp_path, monkeypatch, method):
    weak = "majority_vote" if method == "dawid_skene" else "dawid_skene"  # the other one
    dataset = text_manifest.load(data / "texts.parquet", data / "seed0" / "manifest.parquet")
    watch = Watch(dataset, weak, iter(WIRING[method]))
    train, make_loop = base.train, meta.make_loop

    def watched_train(model: Any, examples: Any, recipe: Any, **given: Any) -> Any:
        watch.phase(model, examples, recipe, given["objective"], given["validation"])
        return train(model, examples, recipe, **given)

    def watched_loop(program: Any, model: Any, network: Any, *given: Any, **options: Any) -> Any:
        training, meta_set, recipe, knobs = given
        watch.meta_phase(program, model, network, training, meta_set, recipe, knobs, options["batch"])
        return make_loop(program, model, network, *given, **options)

    monkeypatch.setattr(base, "train", watched_train)
    monkeypatch.setattr(self_training, "train", watched_train)
    monkeypatch.setattr(meta, "make_loop", watched_loop)
    finetuned(data, tmp_path / "out", method, settings(weak))
    assert list(watch.expected) == []
