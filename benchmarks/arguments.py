"""Arguments of the benchmarks, refused before anything is measured."""

from argparse import ArgumentTypeError
from pathlib import Path

import torch


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 on, got {text}")
    return int(text)


def device(text: str) -> str:
    """cpu, or cuda where there is a GPU."""
    if text == "cuda" and not torch.cuda.is_available():
        raise ArgumentTypeError("cuda: no GPU was found here")
    return text


def output(text: str) -> Path:
    """A file to write; its folder may be missing yet."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"expected a file, {text} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentTypeError(f"{text}: {error.strerror}") from error
    return path
