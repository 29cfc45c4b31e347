import re
from pathlib import Path

import pytest

from sama.errors import SamaError
from sama.files import read_json
from sama.report.readme import END, PICTURES, START, renew
from sama.stages import report
from tests.planted_results import build

ROOT = Path(__file__).parents[2]
OLD = f"before\n{START}\nold numbers\n{END}\nafter\n"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    config = build(root, train=60)
    report.run(results=root / "planted", out=root / "planted/report", config=config)
    return root / "planted"


def test_numbers_and_pictures_are_renewed(results, tmp_path):
    readme, images = tmp_path / "README.md", tmp_path / "images"
    readme.write_text(OLD)
    renew(results, readme, images)
    text = readme.read_text()
    assert text.startswith(f"before\n{START}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old numbers" not in text
    for method, by_ratio in read_json(results / "summary.json")["pruned"].items():
        values = by_ratio["0.3"]["accuracy"]
        assert f"{100 * sum(values) / len(values):.1f} ± " in text, method
    for name in PICTURES:
        assert (images / f"{name}.svg").read_bytes() == (results / f"report/figures/{name}.svg").read_bytes()
    renew(results, readme, images)
    assert readme.read_text() == text


def test_table_rows_are_of_equal_width(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(OLD)
    renew(results, readme, tmp_path / "images")
    rows = [line for line in readme.read_text().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows if "pruned" in row or "labels" in row} == {5}


def test_a_readme_without_the_block_is_left_alone(results, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing here\n")
    with pytest.raises(SamaError, match=r"README.md: expected a block between"):
        renew(results, readme, tmp_path / "images")
    assert readme.read_text() == "nothing here\n"
    assert not (tmp_path / "images").exists()


def test_a_missing_picture_changes_nothing(results, tmp_path):
    readme, moved = tmp_path / "README.md", results / "report/figures/images.svg"
    readme.write_text(OLD)
    kept = moved.read_bytes()
    moved.unlink()
    try:
        with pytest.raises(SamaError, match=r"images.svg: missing; make the report first"):
            renew(results, readme, tmp_path / "images")
    finally:
        moved.write_bytes(kept)
    assert readme.read_text() == OLD


def test_the_readme_has_the_block_and_its_pictures_exist():
    text = (ROOT / "README.md").read_text()
    assert text.count(START) == text.count(END) == 1
    for name in PICTURES:
        assert (f"(docs/images/{name}.svg)" in text) == (ROOT / f"docs/images/{name}.svg").is_file()


def test_links_to_files_of_the_repository_lead_somewhere():
    for name in ("README.md", "CONTRIBUTING.md", "docs/deviations.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"
