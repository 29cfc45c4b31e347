"""What is said where a model, a tokenizer or a data set cannot be had from a hub, or from a folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TALKERS = ("huggingface_hub.utils._http", "transformers")  # loggers that warn of every attempt, and of odd files


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of the hub's client and of transformers: what fails is said once, in one line."""
    levels = {name: logging.getLogger(name).level for name in TALKERS}
    for name in TALKERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def not_loaded(name: str, kind: str, error: Exception) -> str:
    """The line that says why the `kind` of this name was not loaded, and what to do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    place = Path(name)
    if place.is_dir():
        return f"{name}: not the folder of a {kind} ({reason})"
    if place.exists() or place.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        found = "a file" if place.exists() else "nothing"
        return f"{name}: expected the folder of a {kind}, or a name on the hub, found {found} there"
    return (
        f"model {name!r}: {reason}: where the hub can be reached, save model and tokenizer by "
        "save_pretrained(FOLDER); then set model.name to that folder"
    )
