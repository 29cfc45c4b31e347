"""Planted label noise at an exact rate. The labels given here are the clean ones; what comes back is observed."""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sama.data.seeding import generator
from sama.errors import SamaError


def plant(
    label: NDArray[np.int64],
    sample_id: NDArray[np.str_],
    class_names: Sequence[str],
    *,
    kind: str,
    rate: float,
    flips: Mapping[str, str] | None,
    seed: int,
    part: int,
    where: str,
) -> NDArray[np.int64]:
    """Observed labels [n]: exactly `rate` n of them (rounded half up) differ from `label`.

    symmetric: any example, to one of the other classes with equal chance. asymmetric: to the class that `flips` names,
    or k to k + 1 (the last to the first) without `flips`; classes that `flips` does not mention keep their labels, and
    `rate` still counts over all n examples. (Papers often state the rate within the flipped classes instead.)
    The draw depends on `sample_id`, not on the order of the examples; `part` keeps the draws of two splits apart.

    Raises:
        SamaError: unknown class in `flips`, a class flipped to itself, fewer examples that can flip than `rate` needs.
    """
    if kind == "none":
        return label.copy()
    if len(class_names) < 2:
        raise SamaError(f"data.noise: expected at least two classes to confuse, got {len(class_names)}")
    target = None if kind == "symmetric" else _targets(class_names, flips)
    rng = generator("noise", seed, part)
    by_id = np.argsort(sample_id, kind="stable")
    count = int(rate * len(label) + 0.5)
    able = by_id if target is None else by_id[target[label[by_id]] >= 0]
    if count > len(able):
        raise SamaError(
            f"data.noise.rate: {rate} of the {len(label)} examples of split {where!r} is {count} wrong labels, but "
            f"only {len(able)} examples are of a class that data.noise.flips names"
        )
    chosen = able[rng.permutation(len(able))[:count]]
    observed = label.copy()
    if target is None:
        shift = rng.integers(1, len(class_names), size=count)
        observed[chosen] = (label[chosen] + shift) % len(class_names)
    else:
        observed[chosen] = target[label[chosen]]
    return observed


def _targets(class_names: Sequence[str], flips: Mapping[str, str] | None) -> NDArray[np.int64]:
    """For each class the one it is mistaken for, or -1 [classes]."""
    if flips is None:
        return np.roll(np.arange(len(class_names)), -1)
    index = {name: k for k, name in enumerate(class_names)}
    target = np.full(len(class_names), -1)
    for given, mistaken in flips.items():
        for name in (given, mistaken):
            if name not in index:
                close = difflib.get_close_matches(name, class_names, n=1, cutoff=0.0)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise SamaError(f"data.noise.flips: unknown class {name!r}, got {len(class_names)} classes{hint}")
        if given == mistaken:
            raise SamaError(f"data.noise.flips: class {given!r} is flipped to itself")
        target[index[given]] = index[mistaken]
    return target


def realised(label: NDArray[np.int64], clean_label: NDArray[np.int64]) -> dict[str, float]:
    """How many of n >= 1 labels are wrong: `wrong` and `rate`."""
    wrong = int(np.sum(label != clean_label))
    return {"wrong": wrong, "rate": wrong / len(label)}
