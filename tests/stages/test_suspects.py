"""Kept and suspect lists of a folder whose answers are known: brightness tells the true class of an image."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sama.config import ModelConfig, RuntimeConfig, ScoresConfig, SelectionConfig, validate
from sama.data import manifest
from sama.data.manifest import Dataset
from sama.errors import SamaError
from sama.files import read_json, write_parquet
from sama.stages import prepare, suspects

CLASSES = ("NA", "cat, black", "dog")  # names that a careless reader of CSV would lose
WRONG = {(0, 2): 1, (0, 5): 2, (1, 3): 0, (2, 7): 1}  # (true class, number): the class of the folder it stands in
SEEDS = (0, 1, 2)


class Reader(nn.Module):
    """Knows the true class of what it never saw (0.7 to 0.81), and repeats the label of what it trained on (0.9)."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        train = dataset.split("train")
        self.learned = {
            int(image.flat[0]): int(label) for image, label in zip(np.asarray(train.images), train.label, strict=True)
        }
        self.mean, self.std = dataset.channel_mean[0], dataset.channel_std[0]

    def forward(self, inputs: Tensor) -> Tensor:
        values = (255 * (inputs[:, 0, 0, 0] * self.std + self.mean)).round().int().tolist()
        rows = []
        for value in values:
            largest = 0.9 if value in self.learned else 0.7 + (value % 80) / 100
            probabilities = torch.full((3,), (1 - largest) / 2)
            probabilities[self.learned.get(value, value // 80)] = largest
            rows.append(probabilities.log())
        return torch.stack(rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepared data, weights and kept lists of three seeds; `Reader` stands for the meta-trained models."""
    for true in range(3):
        for number in range(12):
            name = CLASSES[WRONG.get((true, number), true)]
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (2, 2), 80 * true + number)
            image.save(tmp_path / "photos" / name / f"{true}_{number}.png")
    prepared(tmp_path, SEEDS)
    for seed in SEEDS:
        ids = opened(tmp_path, seed).split("train").sample_id
        table = pd.DataFrame({"sample_id": ids, "weight": 1.0 + np.arange(len(ids)) * (seed + 1)})
        write_parquet(tmp_path / f"meta/seed{seed}/weights.parquet", table)
        (tmp_path / f"meta/seed{seed}/model.safetensors").write_bytes(b"stands for a model")
        for ratio in (0.25, 0.5):
            kept = ids[round(ratio * len(ids)) :] if seed else ids[: round((1 - ratio) * len(ids))]
            path = tmp_path / f"kept/seed{seed}/meta_weight_{ratio}.parquet"
            write_parquet(path, pd.DataFrame({"sample_id": kept}))
    monkeypatch.setattr(suspects, "_meta_trained", lambda model, dataset, *rest: Reader(dataset))
    return tmp_path


def prepared(folder: Path, seeds: tuple[int, ...], **data: Any) -> None:
    data = {"source": "image_folder", "path": str(folder / "photos"), "channels": 1, "meta_set": "training"} | data
    config = validate({"data": {"splits": {"validation": 6, "test": 6}, **data}})
    prepare.run(out=folder / "data", seeds=seeds, data_root=None, data=config.data)


def opened(folder: Path, seed: int) -> Dataset:
    return manifest.load(folder / "data/images.npy", folder / f"data/seed{seed}/manifest.parquet")


def run(folder: Path, seeds: tuple[int, ...] = SEEDS, methods: Any = ("meta_weight", "random")) -> Path:
    suspects.run(
        images=folder / "data/images.npy",
        meta=folder / "meta",
        kept=folder / "kept",
        out=folder / "suspects",
        seeds=seeds,
        model=ModelConfig(),
        scores=ScoresConfig(methods=methods),
        selection=SelectionConfig(pruning_ratios=(0.25, 0.5)),
        runtime=RuntimeConfig(device="cpu"),
    )
    return folder / "suspects"


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False)


def trained_by(folder: Path, seeds: tuple[int, ...] = SEEDS) -> dict[str, list[int]]:
    """Image -> the seeds that trained on it."""
    found: dict[str, list[int]] = {}
    for seed in seeds:
        for sample_id in opened(folder, seed).split("train").sample_id.tolist():
            found.setdefault(sample_id, []).append(seed)
    return found


def test_what_held_out_models_contradict_is_suspect_and_what_all_trained_on_is_not(folder: Path) -> None:
    table = read(run(folder) / "suspect_labels.csv")
    trained = trained_by(folder)
    wrong = {f"{CLASSES[label]}/{true}_{number}.png": CLASSES[true] for (true, number), label in WRONG.items()}
    expected = {name: true for name, true in wrong.items() if len(trained.get(name, [])) < 3}
    assert 0 < len(expected) < len(WRONG)  # one at least that every seed trained on, and that no model contradicts
    assert dict(zip(table["sample_id"], table["suggested"], strict=True)) == expected
    assert [name.rsplit("/", 1)[0] for name in table["sample_id"]] == table["observed"].tolist()
    largest = [0.7 + int(name.rsplit("_", 1)[1].removesuffix(".png")) / 100 for name in table["sample_id"]]
    assert table["suspicion"].to_numpy() == pytest.approx([p - (1 - p) / 2 for p in largest], rel=1e-5)
    assert table["suspicion"].is_monotonic_decreasing and len(table) > 1
    assert table["held_out"].tolist() == [3 - len(trained.get(name, [])) for name in table["sample_id"]]
    weights = [
        pd.read_parquet(folder / f"meta/seed{s}/weights.parquet").set_index("sample_id")["weight"] for s in SEEDS
    ]
    for name, weight in zip(table["sample_id"], table["weight"], strict=True):
        relative = [weights[seed][name] / weights[seed].mean() for seed in trained.get(name, [])]
        assert (weight == "") == (not relative)
        if relative:
            assert float(weight) == pytest.approx(np.mean(relative), rel=1e-5)


def test_an_image_is_kept_by_half_of_the_seeds_that_trained_on_it(folder: Path) -> None:
    table = read(run(folder) / "kept.csv")
    trained = trained_by(folder)
    counts = read_json(folder / "suspects/summary.json")["kept"]
    for ratio in (0.25, 0.5):
        lists = [set(pd.read_parquet(folder / f"kept/seed{s}/meta_weight_{ratio}.parquet")["sample_id"]) for s in SEEDS]
        votes = {name: sum(name in kept for kept in lists) for name in trained}
        expected = {name for name, count in votes.items() if count >= len(trained[name]) / 2}
        part = table[table["pruning_ratio"] == ratio]
        assert set(part["sample_id"]) == expected and list(part["sample_id"]) == sorted(part["sample_id"])
        assert 0 < len(expected) < len(trained) and counts[str(ratio)] == len(expected)
        assert [votes[name] for name in part["sample_id"]] == part["kept_by"].tolist()
        assert [len(trained[name]) for name in part["sample_id"]] == part["seeds"].tolist()
        assert [name.rsplit("/", 1)[0] for name in part["sample_id"]] == part["label"].tolist()


def test_of_one_seed_the_list_is_that_of_the_seed(folder: Path) -> None:
    table = read(run(folder, seeds=(1,)) / "kept.csv")
    for ratio in (0.25, 0.5):
        kept = pd.read_parquet(folder / f"kept/seed1/meta_weight_{ratio}.parquet")["sample_id"]
        assert table.loc[table["pruning_ratio"] == ratio, "sample_id"].tolist() == sorted(kept)
    wrong = {f"{CLASSES[label]}/{true}_{number}.png" for (true, number), label in WRONG.items()}
    expected = wrong - set(trained_by(folder, (1,)))  # of what it trained on it repeats the label
    assert set(read(folder / "suspects/suspect_labels.csv")["sample_id"]) == expected


def test_without_the_meta_weight_among_the_scores_nothing_is_said_to_be_kept(folder: Path) -> None:
    out = run(folder, methods=("random",))
    assert (out / "kept.csv").read_text() == "pruning_ratio,sample_id,label,weight,kept_by,seeds\n"
    assert read_json(out / "summary.json")["kept"] == {}


def test_where_clean_labels_are_unknown_nothing_is_checked(folder: Path) -> None:
    assert read_json(run(folder) / "summary.json")["checked"] is None


def test_where_clean_labels_are_known_suspects_and_suggestions_are_counted(folder: Path) -> None:
    prepared(folder, (0,), noise={"kind": "symmetric", "rate": 0.3})
    train = opened(folder, 0).split("train")
    write_parquet(folder / "meta/seed0/weights.parquet", pd.DataFrame({"sample_id": train.sample_id, "weight": 1.0}))
    judged = pd.DataFrame({"label": train.label, "clean": train.clean_label})
    found = pd.DataFrame({"label": [0, 1, 2, 0], "clean": [1, 1, 0, 2], "guess": [1, 0, 0, 2]})
    checked = suspects._check(found, judged)
    assert checked is not None
    assert checked["wrong_labels"] == round(0.3 * len(train))
    assert checked["first"] == [{"suspects": 4, "wrong": 3, "suggestion_right": 3}]
    many = pd.concat([found] * 10, ignore_index=True)
    again = suspects._check(many, judged)
    assert again is not None
    assert [line["suspects"] for line in again["first"]] == [24, 40]
    assert [line["wrong"] for line in again["first"]] == [18, 30]
    assert read_json(run(folder, seeds=(0,), methods=("random",)) / "summary.json")["checked"]["wrong_labels"] > 0


def test_the_same_files_give_the_same_bytes_and_other_weights_another_hash(folder: Path) -> None:
    first = {path.name: path.read_bytes() for path in run(folder).iterdir()}
    assert {path.name: path.read_bytes() for path in run(folder).iterdir()} == first
    assert str(folder).encode() not in b"".join(first.values())
    path = folder / "meta/seed1/weights.parquet"
    table = pd.read_parquet(path)
    write_parquet(path, table.assign(weight=table["weight"] ** 2))
    run(folder)
    assert read_json(folder / "suspects/summary.json")["content_hash"].encode() not in first["summary.json"]


def test_seeds_with_planted_noise_are_not_put_together(folder: Path) -> None:
    prepared(folder, SEEDS, noise={"kind": "symmetric", "rate": 0.3})
    with pytest.raises(SamaError, match=r"two seeds saw it under different labels: with planted noise each seed is"):
        for seed in SEEDS:
            ids = opened(folder, seed).split("train").sample_id
            table = pd.DataFrame({"sample_id": ids, "weight": 1.0})
            write_parquet(folder / f"meta/seed{seed}/weights.parquet", table)
        run(folder)


def test_lists_and_weights_of_other_data_are_refused(folder: Path) -> None:
    path = folder / "kept/seed2/meta_weight_0.5.parquet"
    before = path.read_bytes()
    write_parquet(path, pd.DataFrame({"sample_id": ["dog/elsewhere.png"]}))
    with pytest.raises(SamaError, match=f"^{path}: dog/elsewhere.png stands in no train split: was it made for other"):
        run(folder)
    path.write_bytes(before)
    path = folder / "meta/seed2/weights.parquet"
    write_parquet(path, pd.DataFrame({"sample_id": ["dog/elsewhere.png"], "weight": [1.0]}))
    with pytest.raises(SamaError, match=f"^{path}: its sample ids are not those of split train"):
        run(folder)
    assert not (folder / "suspects").exists()
