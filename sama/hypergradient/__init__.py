"""Hypergradient methods: pure functions of program, parameters and batches, one a file, in one registry."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sama.hypergradient.cg import cg
from sama.hypergradient.darts import darts
from sama.hypergradient.difference import Difference
from sama.hypergradient.exact import exact
from sama.hypergradient.itd import itd
from sama.hypergradient.neumann import neumann
from sama.hypergradient.program import Batch, MicroBatches, Params, Program
from sama.hypergradient.result import Evaluated, Hypergradient
from sama.hypergradient.sama import sama, sama_na
from sama.hypergradient.unrolled import DifferentiableUpdate

__all__ = [
    "CONTEXT",
    "METHODS",
    "DifferentiableUpdate",
    "Evaluated",
    "Hypergradient",
    "Method",
    "MicroBatches",
    "knobs_of",
    "method",
]

METHODS: dict[str, Callable[..., Hypergradient]] = {
    "sama": sama,
    "sama_na": sama_na,
    "darts": darts,
    "neumann": neumann,
    "cg": cg,
    "itd": itd,
    "exact": exact,
}

CONTEXT = frozenset({"adapt", "update", "evaluated", "arrived"})
"""Keyword arguments that a loop fills in at each call; all others are knobs that a user sets once."""


@dataclass(frozen=True)
class Method:
    """A registered method with its knobs set; a function of program, parameters, batches and context."""

    name: str
    knobs: Mapping[str, Any]

    def takes(self, context: str) -> bool:
        """Whether the method has a use for that part of the context."""
        return context in inspect.signature(METHODS[self.name]).parameters

    @property
    def before_update(self) -> bool:
        """Whether it belongs at the point and with the random draws of the base step, before its update."""
        return self.knobs.get("difference") == "one_sided"

    def __call__(
        self, program: Program, base: Params, meta: Params, batch: Batch, meta_batch: Batch, **context: Any
    ) -> Hypergradient:
        """The hypergradient.

        Args:
            program, base, meta, batch, meta_batch: as in `sama.hypergradient.sama`.
            context: all that the caller has to offer (`CONTEXT`, or a knob that is not set); the method takes the
                part that it knows.

        Raises:
            ValueError: the method needs something that is neither set nor offered.
        """
        given = {name: value for name, value in context.items() if self.takes(name)} | dict(self.knobs)
        parameters = inspect.signature(METHODS[self.name]).parameters.values()
        needed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"the hypergradient method {self.name} needs {', '.join(missing)}")
        return METHODS[self.name](program, base, meta, batch, meta_batch, **given)


def knobs_of(name: str) -> dict[str, inspect.Parameter]:
    """The knobs of a registered method, name -> parameter with its default.

    Raises:
        ValueError: the name is not registered.
    """
    if name not in METHODS:
        raise ValueError(f"unknown hypergradient method {name!r}: expected one of {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in CONTEXT}


def method(name: str, **knobs: Any) -> Method:
    """The registered method with these knobs.

    Raises:
        ValueError: the name is not registered, a knob is not one of the method's, or its difference is unknown.
    """
    known = knobs_of(name)
    difference = knobs.get("difference", "central")
    if "difference" in known and difference not in get_args(Difference):
        raise ValueError(f"unknown difference {difference!r}: expected one of {', '.join(get_args(Difference))}")
    unknown = [knob for knob in knobs if knob not in known]
    if unknown:
        raise ValueError(
            f"the hypergradient method {name} has no knob {', '.join(unknown)}: expected any of {', '.join(known)}"
        )
    return Method(name, dict(knobs))
