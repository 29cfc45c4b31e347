"""What is done about a failed job, by the kind of its failure.

A time limit and a preemption are no failures: the job goes on from its checkpoint. What somebody cancelled stays so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sama.errors import SamaError
from sama.launch.following import Resources

KINDS = ("exception", "out_of_memory", "node_failure")


@dataclass(frozen=True)
class Failure:
    """How a job ended that has no result.

    Attributes:
        kind: one of KINDS, or empty.
        code: exit code of the stage; 0: it left none.
        log: of the task that failed first.
        said: why, in words.
    """

    kind: str
    code: int
    log: Path
    said: str


class Retries:
    """How many are left of each kind, for one launcher."""

    def __init__(self, wanted: Resources) -> None:
        self.left = counts(wanted.retry)
        self.factor = wanted.memory_factor

    def take(self, kind: str, resources: Resources) -> Resources | None:
        """What to ask for another time after a failure of this kind, or None if that was all."""
        if self.left.get(kind, 0) == 0 or (kind == "out_of_memory" and resources.memory_mb is None):
            return None
        self.left[kind] -= 1
        if kind == "out_of_memory":
            return replace(resources, memory_mb=round((resources.memory_mb or 0) * self.factor))
        return resources


def counts(given: Sequence[str]) -> dict[str, int]:
    """KIND=COUNT, each as an entry.

    Raises:
        SamaError: another kind, or no count.
    """
    found = {}
    for each in given:
        kind, _, count = each.partition("=")
        if kind not in KINDS or not count.isdecimal():
            raise SamaError(f"--retry {each}: expected KIND=COUNT, KIND one of {', '.join(KINDS)}")
        found[kind] = int(count)
    return found
