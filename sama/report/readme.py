"""Renew the pictures and the numbers of README.md from a results folder.

    python -m sama.report.readme results/digits_pruning

Pictures are copied from its report to docs/images; what stands in README.md between `START` and `END` is written anew.
"""

import sys
from pathlib import Path

from sama.config import load as load_config
from sama.errors import SamaError
from sama.files import copy, write_text
from sama.report import tables
from sama.report.findings import findings
from sama.report.loading import Results, load
from sama.report.tables import Table

START = "<!-- numbers: written by `make figures` -->"
END = "<!-- end of numbers -->"
PICTURES = {
    "accuracy": "Test accuracy against pruning ratio for each method, with its spread over seeds",
    "detection": "ROC and precision-recall curves of finding the mislabelled examples",
    "images": "The training images of lowest and of highest importance weight, wrong labels framed",
}


def renew(results: Path, readme: Path, images: Path) -> None:
    """Copy the pictures and rewrite the block of numbers.

    Raises:
        SamaError: a result or a picture is missing, or the README has no such block.
    """
    between(readme, START, "", END)
    config = load_config([results / "config.yaml"])
    loaded = load(results, config.scores.methods)
    block = numbers(loaded, findings(loaded, config))
    pictures = [results / "report/figures" / f"{name}.svg" for name in PICTURES]
    for picture in pictures:
        if not picture.is_file():
            raise SamaError(f"{picture}: missing; make the report first")
    for picture in pictures:
        copy(picture, images / picture.name)
    write_text(readme, between(readme, START, block, END))


def between(readme: Path, start: str, block: str, end: str) -> str:
    """The file's text with `block` for what stands between the lines `start` and `end`.

    Raises:
        SamaError: it has no such lines.
    """
    head, found, rest = readme.read_text(encoding="utf-8").partition(start)
    _, also, tail = rest.partition(end)
    if not (found and also):
        raise SamaError(f"{readme}: expected a block between {start} and {end}")
    return f"{head}{start}\n{block}\n{end}{tail}"


def numbers(results: Results, found: list[str]) -> str:
    """The findings, pictures, and the tables of accuracy and detection as Markdown."""
    shown = {name: f"![{alt}](docs/images/{name}.svg)" for name, alt in PICTURES.items()}
    parts = [*found, shown["accuracy"], markdown(tables.accuracy_table(results)), shown["detection"]]
    if results.detection:
        parts.append(markdown(tables.detection_table(results)))
    return "\n\n".join([*parts, shown["images"]])


def markdown(table: Table) -> str:
    """A table with its notes; a cell that spans columns stands in the first of them."""
    lines = [f"| {' | '.join(table.header)} |", f"|:--|{'--:|' * (len(table.header) - 1)}"]
    for row in table.rows:
        cells = [f"**{cell.text}**" if cell.best else cell.text for cell in row]
        cells += [""] * (len(table.header) - len(cells))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", " ".join(table.notes)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m sama.report.readme RESULTS")
    try:
        renew(Path(sys.argv[1]), Path("README.md"), Path("docs/images"))
    except (SamaError, OSError) as error:
        sys.exit(f"readme: {error}")
