"""Checkpoints: whole or absent, and only for the run that made them."""

import io
import os
import tempfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import torch

from sama import interruption


def save(path: Path, state: dict[str, Any], key: str) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under `key`; the old file stands until then.

    Raises:
        TypeError: something else is in it, which `load` would refuse.
        Interrupted: it is written, and the work was asked to stop.
    """
    _require_plain(state, "state")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            # through memory: on a full disk torch's own writer hides the reason behind an internal error
            content = io.BytesIO()
            torch.save({"key": key, "state": state}, content)
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    if interruption.requested():
        raise interruption.Interrupted(f"{path}: written")


def due(step: int, every: int) -> bool:
    """Whether a checkpoint is to be written after this step: every `every` of them, and when asked to stop."""
    return step % every == 0 or interruption.requested()


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The state saved under `key`, or None where there is none: no file, a damaged one, or one that another run made.

    Raises:
        OSError: there is a file, and it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except OSError:
        raise
    except Exception:  # torch raises half a dozen types for a damaged file: such a file is as good as none
        return None
    if not isinstance(content, dict) or content.get("key") != key:
        return None
    return content["state"]


PLAIN = (torch.Tensor, torch.nn.Parameter, bool, int, float, str, bytes, type(None))


def _require_plain(value: Any, where: str) -> None:
    if type(value) in (dict, OrderedDict, defaultdict):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for k, item in enumerate(value):
            _require_plain(item, f"{where}[{k}]")
    elif type(value) not in PLAIN:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{where}: expected tensors, numbers, strings, lists and dicts in a checkpoint, got a {kind}")


def random_state() -> dict[str, Any]:
    """Torch's random state, for a checkpoint."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Continue the random draws where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
