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
from sama.training import Examples, Recipe, train

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

    def over(
        self,
        name: str,
        model: Callable[[], nn.Module],
        say: Say,
        examples: Examples,
        *,
        batch_size: int,
        shared: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `say` gives for this process's examples, in evaluation mode.

        A chunk of `batch_size` examples holds the same ones whichever process takes it, and after an interruption too,
        so that the answers are the same bit for bit.

        Args:
            name: of the pass, unique in the run.
            model: makes the model, or finds it trained; called where a chunk is left to do.
            say: what to say.
            examples: of whom.
            batch_size: examples a chunk.
            shared: chunk i is for process i modulo their number; else this process takes all of them.

        Returns:
            The examples' numbers [k] and the answers [k, ...].
        """
        rank, world_size = (self.processes.rank, self.processes.world_size) if shared else (0, 1)
        mine = torch.arange(len(examples)).split(batch_size)[rank::world_size]
        parts: list[Tensor] = []
        done = 0
        while (part := checkpoint.load(self._path(name, f"part{len(parts)}"), self.key)) is not None:
            parts.append(part["values"])
            done += part["chunks"]
        if done < len(mine):
            network = model().eval()
            fresh: list[Tensor] = []

            def keep() -> None:
                part = {"values": torch.cat(fresh), "chunks": len(fresh)}
                checkpoint.save(self._path(name, f"part{len(parts)}"), part, self.key)
                parts.append(part["values"])
                fresh.clear()

            with self._progress(len(mine), f"{name}: pass", done, shared) as progress:
                for indices, inputs in examples.batches(
                    batch_size, self.device, rank=rank, world_size=world_size, skip=done
                ):
                    fresh.append(say(network, inputs, examples.labels[indices]).cpu())
                    done += 1
                    progress.update(done)
                    if len(fresh) * batch_size >= SAVE_EVERY:
                        keep()
            if fresh:
                keep()
        found = torch.cat(parts) if parts else torch.empty(0)
        self._path(name, "training").unlink(missing_ok=True)
        return torch.cat([torch.empty(0, dtype=torch.int64), *mine]).numpy(), found.numpy()

    def trained(
        self,
        name: str,
        network: nn.Module,
        examples: Examples,
        recipe: Recipe,
        *,
        seed: int,
        steps: int,
        shared: bool,
    ) -> nn.Module:
        """`network` trained on the examples by `steps` of the recipe; what an earlier run did of it is taken over.

        `shared`: the other processes train the same.
        """
        path = self._path(name, "training")
        state = checkpoint.load(path, self.key) or {"step": 0, "training": None, "model": None}
        if state["model"] is None:

            def save(step: int, training: dict[str, Any]) -> None:
                checkpoint.save(path, {"step": step, "training": training, "model": None}, self.key)

            with self._progress(steps, f"{name}: training", state["step"], shared) as progress:
                train(
                    network,
                    examples,
                    recipe,
                    seed=seed,
                    device=self.device,
                    steps=steps,
                    progress=progress.update,
                    resume=state["training"],
                    save=save,
                )
            state = {"step": steps, "training": None, "model": network.state_dict()}
            checkpoint.save(path, state, self.key)
        network.load_state_dict(state["model"])
        return network

    def finish(self) -> None:
        """Clear up after all processes; call it in the first when the outputs stand. Other files are left alone."""
        # hidden: half a file of a run that was killed while it wrote
        for pattern in ("*_[0-9]*of[0-9]*.pt", ".*_[0-9]*of[0-9]*.pt.*"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _progress(self, total: int, description: str, start: int, shared: bool) -> Progress:
        """Of what all processes do alike, the first one tells."""
        return Progress(total, description, start, silent=shared and not self.processes.first)

    def _path(self, name: str, what: str) -> Path:
        return self.folder / f"{name}_{what}_{self.processes.rank}of{self.processes.world_size}.pt"
