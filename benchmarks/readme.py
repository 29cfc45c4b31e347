"""Renew the README's tables of benchmarks from the records that are kept.

    python -m benchmarks.readme

What stands between `START` and `END` is written anew from benchmarks/results/*/*.json, but for those of experiments.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import Record, summary
from sama.errors import SamaError
from sama.files import read_json, write_text
from sama.report.readme import between, markdown

START = "<!-- benchmarks: written by `python -m benchmarks.readme` -->"
END = "<!-- end of benchmarks -->"
RESULTS = Path(__file__).parent / "results"
ORDER = ("throughput", "peers", "scaling", "slow_link")


def records(results: Path = RESULTS) -> list[Record]:
    """What benchmarks wrote, by kind, folder and name."""
    found = [read_json(path) for path in sorted(results.glob("*/*.json"))]
    kept = [record for record in found if record.get("benchmark") in ORDER]
    return sorted(kept, key=lambda record: ORDER.index(record["benchmark"]))


def block(kept: Sequence[Record]) -> str:
    """A table a record as Markdown."""
    tables = [summary(record) for record in kept]
    return "\n\n".join(f"{table.title}\n\n{markdown(table)}" for table in tables)


def renew(readme: Path, kept: Sequence[Record]) -> None:
    """Rewrite the block.

    Raises:
        SamaError: the README has none.
    """
    write_text(readme, between(readme, START, block(kept), END))


if __name__ == "__main__":
    try:
        renew(Path("README.md"), records())
    except (SamaError, OSError) as error:
        sys.exit(f"readme: {error}")
