"""Passes of models over the examples: shared by several processes, and not done twice after an interruption."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sama.bilevel import checkpoint
from sama.metrics import Progress
from sama.stages._common import machine_key
from sama.stages._processes import Processes
from sama.training import Examples

SAVE_EVERY = 2**15  # examples of a pass between two files: seconds of work, and few files

Say = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, inputs [batch, ...], labels [batch]) -> [batch, ...]


class Passes:
    """What models say of the examples, in memory for the answers alone.

    The folder keeps the state of the training in progress, trained models until their pass is done, and the answers of
    a pass in parts. It is no output of the workflow; `finish` clears it.

    Args:
        folder: made when there is something to keep.
        key: of the run; what another run left in the folder is ignored, and so is what other code, another torch,
            device, number of threads or of processes left.
        processes: those that share the work.
        device: where the models compute.
    """

    def __init__(self, folder: Path, key: str, processes: Processes, device: torch.device) -> None:
        self.folder, self.processes, self.device = folder, processes, device
        self.key = machine_key(key, device)

    def training(self, name: str) -> "Training":
        """What is kept of the training of the model `name`."""
        return Training(self._path(name, "training"), self.key)

    def over(
        self,
        name: str,
        model: Callable[[], nn.Module],
        say: Say,
        examples: Examples,
        *,
        batch_size: int,
        shared: bool,
    ) -> np.ndarray:
        """What `say` gives for every example, in evaluation mode: [n, ...], zero for the chunks of other processes.

        A chunk of `batch_size` examples holds the same examples whichever process takes it, after an interruption too,
        so that the answers are the same bit for bit.

        Args:
            name: of the pass, unique in the run.
            model: makes or finds the model; not called where the whole pass is done.
            say: what to say.
            examples: of whom.
            batch_size: examples a chunk.
            shared: chunk i is for process i modulo their number; else this process takes all of them.
        """
        rank, world_size = (self.processes.rank, self.processes.world_size) if shared else (0, 1)
        n = len(examples)
        mine = torch.cat([torch.empty(0, dtype=torch.int64), *torch.arange(n).split(batch_size)[rank::world_size]])
        parts: list[Tensor] = []
        while (part := checkpoint.load(self._path(name, f"part{len(parts)}"), self.key)) is not None:
            parts.append(part["values"])
        done = sum(map(len, parts))
        if done < len(mine):
            network = model().eval()
            rest = examples.part(mine[done:])
            fresh: list[Tensor] = []

            def keep() -> None:
                parts.append(torch.cat(fresh))
                checkpoint.save(self._path(name, f"part{len(parts) - 1}"), {"values": parts[-1]}, self.key)
                fresh.clear()

            with Progress(len(mine), f"{name} pass", start=done) as progress:
                for indices, inputs in rest.batches(batch_size, self.device):
                    fresh.append(say(network, inputs, rest.labels[indices].to(self.device)).cpu())
                    done += len(indices)
                    progress.update(done)
                    if sum(map(len, fresh)) >= SAVE_EVERY:
                        keep()
            if fresh:
                keep()
        found = torch.cat(parts) if parts else torch.empty(0)
        whole = torch.zeros(n, *found.shape[1:], dtype=found.dtype)
        whole[mine] = found
        self._path(name, "training").unlink(missing_ok=True)
        return whole.numpy()

    def finish(self) -> None:
        """Clear up after all processes; call it in the first when the outputs stand."""
        for pattern in ("*.pt", ".*.pt.*"):  # hidden: half a file of a run that was killed while it wrote
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, name: str, what: str) -> Path:
        return self.folder / f"{name}_{what}_{self.processes.rank}of{self.processes.world_size}.pt"


class Training:
    """The file with the state of one training: resumable while it goes on, then the trained weights."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.state: dict[str, Any] = checkpoint.load(path, key) or {"step": 0, "resume": None, "trained": None}

    def save(self, step: int, resume: dict[str, Any]) -> None:
        """Keep what the training goes on from."""
        checkpoint.save(self._path, {"step": step, "resume": resume, "trained": None}, self._key)

    def trained(self, step: int, model: nn.Module) -> None:
        """Keep the trained model."""
        checkpoint.save(self._path, {"step": step, "resume": None, "trained": model.state_dict()}, self._key)
