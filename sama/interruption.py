"""A training that is asked to stop writes a checkpoint after its next step and leaves.

Whoever gets the signal calls `request`; the loops ask `requested` where they decide whether a checkpoint is due; and
`sama.bilevel.checkpoint.save`, having written one, raises `Interrupted`.
"""

_requested = False


class Interrupted(BaseException):
    """The work stopped as it was asked to, and can go on from its checkpoint; like KeyboardInterrupt no `Exception`."""


def request(wanted: bool = True) -> None:
    """Ask the work of this process to stop at its next checkpoint, or, with False, to go on."""
    global _requested
    _requested = wanted


def requested() -> bool:
    """Whether it was asked to."""
    return _requested
