"""The finetuned model as transformers reads it, with a model card."""

from pathlib import Path
from typing import Any

import numpy as np

from sama.config import RuntimeConfig, TextModelConfig
from sama.data.text_manifest import load
from sama.errors import SamaError
from sama.files import read_json, write_text
from sama.networks.texts import save_pretrained
from sama.stages._common import device_of, load_weights
from sama.stages._texts import Texts


def run(
    *,
    texts: Path,
    models: Path,
    summary: Path,
    data_root: Path | None = None,
    out: Path,
    model: TextModelConfig,
    runtime: RuntimeConfig,
) -> None:
    """Write the model that did best on validation: of the best method on average, the best seed.

    Args:
        texts: texts.parquet of `sama prepare-texts`, beside the manifests of the seeds.
        models: folder of the finetuned models, seed{S}/METHOD.
        summary: summary.json of the experiment.
        data_root: folder that holds the data sets, and models that `model.name` names by a relative path.
        out: folder for model, tokenizer and README.md (the model card).
        model: the encoder.
        runtime: threads and device.

    Raises:
        SamaError: a file is missing or does not fit.
    """
    device_of(runtime)
    found = read_json(summary)
    try:
        validation: dict[str, list[float]] = found["validation"]
        method = max(validation, key=lambda name: np.mean(validation[name]))
        seed = found["seeds"][int(np.argmax(validation[method]))]
    except (KeyError, ValueError, IndexError) as error:
        raise SamaError(f"{summary}: expected validation measures of the methods, one a seed") from error
    dataset = load(texts, texts.parent / f"seed{seed}" / "manifest.parquet")
    source = Texts(dataset, model, texts.parent / "tokenizer", data_root)
    network = source.classifier(seed, masked_head=False, attention="sdpa")
    load_weights(network.model, models / f"seed{seed}" / method / "model.safetensors")
    out.mkdir(parents=True, exist_ok=True)
    save_pretrained(network, source.tokenizer, out, dataset.class_names)
    write_text(out / "README.md", card(found, method, seed, dataset.class_names, model, place=source.name))


def card(
    summary: dict[str, Any],
    method: str,
    seed: int,
    class_names: tuple[str, ...],
    model: TextModelConfig,
    *,
    place: str | None,
) -> str:
    """The model card: YAML front matter as the hub reads it, then what the model is and how well it does.

    `place` is where the encoder came from: a folder, of which the card says the last name alone, or a name on the hub.
    """
    measure = summary["measure"]
    values = summary["test"][method][measure]
    here = values[summary["seeds"].index(seed)]
    spread = ""
    if len(values) > 1:
        spread = f" ({len(values)} seeds: {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f})"
    weak = " (against weak labels: clean ones are not known)"
    against = {split: weak if kind == "weak" else "" for split, kind in summary["measured_against"].items()}
    small = f"a small BERT ({model.layers} layers of width {model.hidden_size}), trained from random weights"
    local = place is not None and Path(place).is_dir()
    encoder = small if place is None else f"a local folder, {Path(place).absolute().name}" if local else place
    base = f"base_model: {place}\n" if place is not None and not local else ""
    return f"""---
library_name: transformers
pipeline_tag: text-classification
{base}tags: [sama, weak-supervision]
---
# {summary["experiment"]}

A text classifier of {len(class_names)} classes: {", ".join(class_names)}.

- Encoder: {encoder}.
- Method: `{method}`, seed {seed}; chosen by {measure} on validation{against["validation"]} among \
{", ".join(summary["validation"])}.
- {measure} on the test split{against["test"]}: {here:.4f}{spread}.

```python
from transformers import pipeline

classify = pipeline("text-classification", "FOLDER")
```

Labels that it learned from may be wrong (labelling functions, rules, crowds): look at the report before you rely on it.
"""
