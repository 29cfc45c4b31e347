"""The example of docs/your_own_program.md is short, runs, and prints what the page shows and says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your_own_program.md"
LINE = re.compile(r"(.+\S) +validation loss ([\d.]+), test loss ([\d.]+), test accuracy ([\d.]+)")


def test_the_example_prints_what_the_page_shows():
    text = PAGE.read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(example.splitlines()) < 60
    one_thread = "import torch\ntorch.set_num_threads(1)\n"
    done = subprocess.run([sys.executable, "-c", one_thread + example], check=True, capture_output=True, text=True)
    printed, shown = ({m[1]: [float(x) for x in m.groups()[1:]] for m in LINE.finditer(t)} for t in (done.stdout, text))
    assert list(printed) == list(shown)
    for name, values in printed.items():
        assert values == pytest.approx(shown[name], abs=0.005), name  # another processor rounds otherwise
    learned = printed.pop("learned from exp(-6)")
    for fixed in printed.values():  # "the lower the better" twice, and accuracy
        assert learned[0] < 0.5 * fixed[0]
        assert learned[1] < fixed[1]
        assert learned[2] > fixed[2]


def test_the_links_of_the_pages_lead_somewhere():
    for page in PAGE.parent.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
