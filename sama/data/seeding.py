"""Random streams of the data room: one for each purpose, so that drawing more of one never shifts another."""

import numpy as np

PURPOSES = ("subset", "split", "noise", "statistics")  # append only: the position is the spawn key


def generator(purpose: str, seed: int, part: int = 0) -> np.random.Generator:
    """The stream of `purpose` under `seed`; `part` tells apart the draws of one purpose (say, of each split)."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose), part)))
