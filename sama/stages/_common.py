"""What the stages that train share: device, weights, and what an interrupted run continues from."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from sama.bilevel import checkpoint
from sama.config import RuntimeConfig
from sama.errors import SamaError
from sama.files import atomic, copy, sha256
from sama.metrics import MetricLog
from sama.stages._keys import source_hash
from sama.stages._processes import Processes
from sama.tracking import live
from sama.training import setup_torch


def load_weights(module: nn.Module, path: Path) -> None:
    """Read the file of `save_weights` into `module`.

    Raises:
        SamaError: the file is missing, damaged, or of another model.
    """
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        raise SamaError(f"{path}: not the weights of this model ({str(error).splitlines()[0]})") from error


def save_weights(path: Path, module: nn.Module) -> None:
    """Write the parameters and buffers of `module` as safetensors, atomically."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)  # safetensors' own writer has an error type of its own for a full disk


def device_of(runtime: RuntimeConfig) -> torch.device:
    """Set torch up and return the device.

    Raises:
        SamaError: a GPU was asked for and there is none.
    """
    try:
        return setup_torch(runtime.threads, runtime.device)
    except ValueError as error:
        raise SamaError(str(error)) from error


def require_one_a_seed(seed: Sequence[int], **paths: Sequence[Path]) -> None:
    """Raise a `SamaError` unless there are as many of each option as seeds, and no seed twice."""
    if len(set(seed)) < len(seed):
        raise SamaError(f"--seed: expected different seeds, got {', '.join(map(str, seed))}")
    for name, given in paths.items():
        if len(given) != len(seed):
            raise SamaError(f"--{name}: expected {len(seed)}, one for each --seed, got {len(given)}")


def machine_key(key: str, device: torch.device, processes: int = 1) -> str:
    """`key` of a run, and of what its numbers depend on: code, torch, device, number of threads and of `processes`."""
    several = [] if processes == 1 else [f"{processes} processes"]
    return sha256(key, source_hash(), torch.__version__, device.type, str(torch.get_num_threads()), *several)


class Run:
    """The folder where a training run leaves what it needs to be continued: its checkpoint and its metrics so far.

    It is no output of the workflow (Snakemake deletes outputs before it runs a job again); `finish` removes it.

    Args:
        folder: made if needed.
        key: of the run; what another run left in the folder is ignored, and so is what other code, another torch,
            device, number of threads or of processes left: their numbers differ.
        device: where the run computes.
        cell, seed: what is trained, if its curves are to be seen on a tracking server while it runs.
        processes: that train together, and have joined. All read the folder, the first alone writes there.

    Raises:
        SamaError: the processes do not see the same checkpoint.
    """

    metrics: MetricLog  # of the first process

    def __init__(
        self,
        folder: Path,
        key: str,
        device: torch.device,
        *,
        cell: str | None = None,
        seed: int | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.folder = folder
        self.processes = processes or Processes()
        self.key = machine_key(key, device, self.processes.world_size)
        self._checkpoint = folder / "checkpoint.pt"
        folder.mkdir(parents=True, exist_ok=True)
        content = checkpoint.load(self._checkpoint, self.key)
        self.checkpointed: dict[str, Any] | None = content["state"] if content else None
        self.step: int = content["step"] if content else 0
        seen = self.processes.exchange(self.step)
        if len(set(seen)) > 1:
            raise SamaError(
                f"{folder}: the processes see checkpoints of the steps {', '.join(map(str, seen))}, "
                "expected one folder that all of them share"
            )
        if not self.processes.first:
            return
        self.metrics = MetricLog(folder / "metrics.jsonl", resume_step=self.step if content else None)
        self._live = None if cell is None or seed is None else live(self.metrics.path, cell, seed, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if not self.processes.first:
            return
        self.metrics.close()
        self._close_live("KILLED" if kind is not None and not issubclass(kind, Exception) else "FAILED")

    def _close_live(self, status: str) -> None:
        if self._live is not None:
            self._live.close(status)
            self._live = None

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Write a line of metrics, in the first process."""
        if self.processes.first:
            self.metrics.write(step, numbers)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint of `step`, in the first process."""
        if self.processes.first:
            checkpoint.save(self._checkpoint, {"step": step, "state": state}, self.key)

    def finish(self, metrics: Path) -> None:
        """Copy the metrics to their place and clear up; call it when every other output stands."""
        self.metrics.close()
        self._close_live("FINISHED")
        copy(self.metrics.path, metrics)
        self.drop()

    def drop(self) -> None:
        """Clear up: what was trained is not needed any more, or stands elsewhere."""
        self.metrics.close()
        # the checkpoint first: with it, but without the metrics before it, a run killed here could not be continued
        self._checkpoint.unlink(missing_ok=True)
        self.metrics.path.unlink()
        for leftover in self.folder.glob(".*"):  # half a file of a run that was killed while it wrote
            leftover.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
