"""The README's example of the library does what the README says."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_library_example_finds_the_wrong_labels() -> None:
    examples = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (example,) = [code for code in examples if "BilevelLoop" in code]
    seeded = "import torch\ntorch.manual_seed(0)\ntorch.set_num_threads(1)\n" + example
    done = subprocess.run([sys.executable, "-c", seeded], check=True, capture_output=True, text=True)
    said = re.fullmatch(r"mean weight: ([\d.]+) of the first 500, ([\d.]+) of the others\n", done.stdout)
    assert said, done.stdout
    assert float(said[1]) < 0.1 < 0.2 < float(said[2])
