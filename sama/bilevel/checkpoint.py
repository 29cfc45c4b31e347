"""Checkpoints: whole or absent, and only for the run that made them."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any], key: str) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under `key`; the old file stands until then."""
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


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The state saved under `key`, or None where there is none: no file, or one that another run made."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # torch raises half a dozen types for a damaged file: such a file is as good as none
        return None
    if not isinstance(content, dict) or content.get("key") != key:
        return None
    return content["state"]


def random_state() -> dict[str, Any]:
    """Torch's random state, for a checkpoint."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Continue the random draws where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
