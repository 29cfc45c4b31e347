"""What a launcher asks for after a failure."""

from dataclasses import replace
from pathlib import Path

import pytest

from sama.errors import SamaError
from sama.launch.following import Resources
from sama.launch.retries import Retries, counts

WANTED = Resources(1, 0, 1000, 60, Path("logs"), retry=("out_of_memory=2", "node_failure=1"), memory_factor=1.5)


def test_memory_grows_each_time_until_no_retry_is_left() -> None:
    retries = Retries(WANTED)
    first, second = (replace(WANTED, memory_mb=memory) for memory in (1500, 2250))
    assert retries.take("out_of_memory", WANTED) == first
    assert retries.take("out_of_memory", first) == second
    assert retries.take("out_of_memory", second) is None
    assert retries.take("node_failure", second) == second


@pytest.mark.parametrize("kind", ["exception", ""])
def test_what_is_not_listed_is_not_tried_again(kind: str) -> None:
    assert Retries(WANTED).take(kind, WANTED) is None


def test_memory_that_was_not_asked_for_cannot_grow() -> None:
    wanted = replace(WANTED, memory_mb=None)
    assert Retries(wanted).take("out_of_memory", wanted) is None


@pytest.mark.parametrize("given", ["out_of_memry=1", "exception", "exception=often", "exception=-1"])
def test_other_kinds_and_counts_are_refused(given: str) -> None:
    with pytest.raises(SamaError, match=rf"--retry {given}: expected KIND=COUNT, KIND one of exception, out_of_memory"):
        counts((given,))
