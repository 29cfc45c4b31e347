"""Meta training by several processes, and the one process that it has to agree with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor

from sama import meta_training
from sama.bilevel.loop import BilevelLoop
from sama.config import Config, validate
from sama.data import manifest as manifests
from sama.networks.meta_weight import MetaWeightNetwork
from sama.stages import meta_train
from sama.stages._images import classifier, examples
from sama.stages._processes import Processes
from tests.bilevel import by_hand
from tests.stages.small_digits import DATA

PARTS = 4  # micro-batches a step


def settings(**recipe: Any) -> dict[str, Any]:
    return {
        "data": DATA,
        "meta": {
            "unroll_steps": 2,
            "batch_size": 20,
            "accumulate": PARTS,
            "training": {"steps": 12, "batch_size": 16, "accumulate": PARTS, "log_every": 4, **recipe},
        },
        "runtime": {"device": "cpu"},
    }


def in_float64(patch: Callable[[Any, str, Any], None]) -> None:
    """Have the stage compute in double precision, where what differs in the order of sums alone stays small.

    In float32 Adam's first steps make whole steps of the rounding errors of gradients that are zero.
    """

    def model(*arguments: Any) -> torch.nn.Module:
        made = classifier(*arguments).double()
        made.register_forward_pre_hook(lambda module, inputs: inputs[0].double())
        return made

    def network(*arguments: Any) -> torch.nn.Module:
        return MetaWeightNetwork(*arguments).double()

    patch(meta_train, "classifier", model)
    patch(meta_train, "MetaWeightNetwork", network)


class _Group:
    """As much of a process group as says which share of the stream is whose."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = (lambda: rank), (lambda: size)


class _Share(Processes):
    def group(self) -> Any:
        return _Group(self.rank, self.world_size)


def averaged(data: Path, config: Config, world_size: int, patch: Any) -> dict[str, Tensor]:
    """The results of one process that computes the shards of `world_size`, and averages; name -> tensor."""

    def alone(*arguments: Any, group: Any, **options: Any) -> BilevelLoop:
        return BilevelLoop(*arguments, **options)

    patch.setattr(meta_training, "BilevelLoop", alone)
    in_float64(patch.setattr)
    device, seed = torch.device("cpu"), 0
    dataset = manifests.load(data / "images.npy", data / "seed0" / "manifest.parquet", data_root=None, workers=1)
    training, meta_examples = examples(dataset, "train"), examples(dataset, dataset.meta_split().name)
    trainers = []
    for rank in range(world_size):
        model = meta_train.classifier(config.model, dataset, seed)
        share = _Share(rank, world_size)
        trainers.append(meta_train._assemble(model, training, meta_examples, config.meta, seed, device, share))
    patch.undo()
    first = trainers[0]
    watched = meta_train._watched(first.program, config.meta, len(training))
    first.model.train()
    loss = torch.zeros(())
    for _ in range(config.meta.training.steps):
        results = by_hand.step([trainer.loop for trainer in trainers])
        for result in results:
            watched.watch(result)
        loss = torch.stack([result.base_loss for result in results]).mean()
    weights = {f"weights/{name}": torch.from_numpy(value) for name, value in watched.means().items()}
    return {**named(first.model, first.network), **weights, "train/loss": loss}


def named(model: torch.nn.Module, network: torch.nn.Module) -> dict[str, Tensor]:
    modules = {"model": model, "network": network}
    return {f"{kind}/{name}": value for kind, m in modules.items() for name, value in m.state_dict().items()}


def results(out: Path) -> dict[str, Tensor]:
    """What the stage wrote, as `averaged` names it."""
    model, network = load_file(out / "model.safetensors"), load_file(out / "meta_network.safetensors")
    table = pd.read_parquet(out / "weights.parquet").drop(columns="sample_id")
    last = pd.read_json(out / "metrics.jsonl", lines=True)["train/loss"].iloc[-1]
    return {
        **{f"model/{name}": value for name, value in model.items()},
        **{f"network/{name}": value for name, value in network.items()},
        **{f"weights/{name}": torch.from_numpy(np.array(table[name])) for name in table},
        "train/loss": torch.tensor(last, dtype=torch.float64),
    }


def require_agreement(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def configured(**recipe: Any) -> Config:
    return validate(settings(**recipe))
