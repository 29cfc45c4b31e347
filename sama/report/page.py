"""One self-contained HTML page: tiles, findings, figures with captions, tables, configuration, how to reproduce."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import jinja2
import yaml
from markupsafe import Markup

from sama.config import Config, TextsConfig
from sama.files import write_text
from sama.report import suspects, tables, words
from sama.report.compare import spread
from sama.report.findings import findings
from sama.report.loading import Results
from sama.report.strategy import selection_text, uncounted_text
from sama.report.style import MUTED, label, looks
from sama.report.tables import Table
from sama.report.template import CSS, HTML

DEFAULTS = {Config: "config/config.yaml", TextsConfig: "config/texts.yaml"}


@dataclass(frozen=True)
class Drawing:
    """A finished figure: SVG text, what it shows in a few words (for those who cannot see it), and its caption."""

    svg: str
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data address: no ids of one figure meet those of another."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()

    @property
    def width(self) -> int:
        """Natural width in CSS pixels, a little enlarged: 1 pt = 4/3 px."""
        found = re.search(r'width="([\d.]+)pt"', self.svg)
        return round(float(found.group(1)) * 4 / 3 * 1.05) if found else 900


@dataclass(frozen=True)
class Tile:
    """A headline number."""

    value: str
    spread: str
    text: str
    colour: str


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    texts: list[str] = field(default_factory=list)
    pictures: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    links: tuple[tuple[str, str], ...] = ()  # text, address
    command: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    subtitle: str
    tiles: list[Tile]
    findings: list[str]
    sections: list[Section]
    source: str


def render(results: Results, config: Config, drawings: Mapping[str, Drawing]) -> str:
    """The page as HTML text; `drawings` by the name of the figure."""
    page = Page(
        title=results.experiment.replace("_", " "),
        subtitle=subtitle(results, config),
        tiles=tiles(results),
        findings=findings(results, config),
        sections=sections(results, config, drawings),
        source=f"results/{results.experiment}/summary.json",
    )
    return show(page)


def show(page: Page) -> str:
    """The page as HTML text; all words in it are escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["unbroken"] = unbroken
    return environment.from_string(HTML).render(page=page, css=Markup(CSS))


def write(out: Path, html: str, drawings: Mapping[str, Drawing]) -> None:
    """Write OUT/figures/NAME.svg, remove those of other names, and write OUT/index.html."""
    (out / "index.html").unlink(missing_ok=True)  # it comes back last: where it stands, the figures fit it
    for stale in (out / "figures").glob("*.svg"):
        if stale.stem not in drawings:
            stale.unlink()
    for name, drawing in drawings.items():
        write_text(out / "figures" / f"{name}.svg", drawing.svg)
    write_text(out / "index.html", html)


def unbroken(text: str) -> str:
    """`text` with spaces that no line ends at inside '97.5 ± 0.4 %'."""
    return text.replace(" ± ", "\u00a0±\u00a0").replace(" %", "\u00a0%")


def subtitle(results: Results, config: Config) -> str:
    """Data, noise, model and number of seeds in one line."""
    channels, height, width = results.dataset["image_shape"]
    noise = config.data.noise
    parts = [
        f"{results.dataset['source']}: {results.dataset['examples']:,} images of {height}×{width}"
        f"{' in colour' if channels == 3 else ''}, {len(results.dataset['class_names'])} classes",
        f"{words.percent(noise.rate)} {noise.kind} label noise, planted" if noise.kind != "none" else "",
        config.model.name,
        words.seeds_text(len(results.seeds)),
    ]
    return " · ".join(part for part in parts if part)


def tiles(results: Results) -> list[Tile]:
    """The headline numbers: detection, then accuracy at the lowest ratio beside what it must be compared with."""
    focus, ratio = words.focus_of(results), results.ratios[0]
    at = results.at(ratio)
    shown = [method for method in dict.fromkeys((focus, words.BASELINE)) if method in at]
    found = []
    if focus in results.detection:
        auc = spread(results.detection[focus]["auc"])
        text = f"AUC of finding wrong labels by {label(focus)}"
        found.append(tile(words.auc_text(auc), text, looks([focus])[focus].colour))
    for method in shown:
        text = f"test accuracy, {words.percent(ratio)} {words.pruned_by(method)}"
        found.append(tile(words.accuracy_text(spread(at[method])), text, looks([method])[method].colour))
    for values, text, colour in (
        (results.full, "test accuracy, trained on all observed labels", MUTED),
        (results.clean, "test accuracy, trained on all clean labels: an upper bound", "var(--ink)"),
    ):
        if values:
            found.append(tile(words.accuracy_text(spread(values)), text, colour))
    return found


def tile(value: str, text: str, colour: str) -> Tile:
    """A headline number; the spread of '97.5 ± 0.4 %' is set apart."""
    number, plus_minus, deviation = value.partition(" ± ")
    if plus_minus:
        unit = " %" if deviation.endswith(" %") else ""
        return Tile(number + unit, f"± {deviation.removesuffix(' %')}", text, colour)
    return Tile(value, "", text, colour)


def sections(results: Results, config: Config, drawings: Mapping[str, Drawing]) -> list[Section]:
    """All parts that these results have something for."""

    def pictures(*names: str) -> list[Drawing]:
        return [drawings[name] for name in names if name in drawings]

    accuracy_tables = [tables.accuracy_table(results)]
    if results.kept_noise:
        accuracy_tables.append(tables.kept_noise_table(results))
    chosen = [selection_text(config)]
    parts = [Section("accuracy", "Accuracy after pruning", chosen, pictures("accuracy"), accuracy_tables)]
    if results.detection:
        table = tables.detection_table(results)
        parts.append(Section("detection", "Finding wrong labels", [], pictures("detection"), [table]))
    if results.weights:
        parts.append(
            Section("weights", "Importance weights", [], pictures("weights", "images", "scatter", "scatter_loss_only"))
        )
    if results.suspects is not None:
        found, checked = results.suspects, suspects.table(results.suspects)
        shown = [checked] if checked else []
        said, sheet = suspects.texts(found, config), pictures("suspects")
        parts.append(Section("suspects", "Suspect labels", said, sheet, shown, suspects.LINKS))
    parts.append(Section("curves", "Learning curves", [], pictures("learning_curves")))
    uncounted = [text] if (text := uncounted_text(config)) else []
    costs = [tables.cost_table(results)]
    parts.append(Section("cost", "Cost", uncounted, pictures("cost_and_accuracy", "search_cost"), costs))
    if len(results.pruned) > 1:
        shared = [tables.shared_table(results)]
        parts.append(
            Section("agreement", "Agreement of the scores", [], pictures("rank_correlation", "shared"), shared)
        )
    note = "Counted by content: the same pixels under two ids."
    overlap = tables.overlap_table(list(results.overlap.values()), "Images", note)
    data = [tables.splits_table(results), *([overlap] if overlap else [])]
    texts = [data_text(config), *skipped_text(results.dataset.get("skipped", []))]
    if overlap is None and all(results.overlap.values()):
        texts.append("No two splits share an image, pixel for pixel.")
    parts.append(Section("data", "Data", texts, [], data))
    command, how = reproduction(config)
    parts.append(Section("reproduce", "Reproduce", [how], command=command, folded=shown_config(config)))
    return parts


def data_text(config: Config) -> str:
    """How the splits are used."""
    text = "Networks are trained on the train split; the test split is read once, at the end."
    if config.data.meta_set == "training":
        return text + " The train split serves as the meta set too."
    kind = "clean" if config.data.meta_set == "clean_held_out" else "observed, noisy"
    return text + f" The meta split, on {kind} labels, steers the importance weights; no example stands in two splits."


def skipped_text(skipped: list[str]) -> list[str]:
    """Which images were corrupt and left out; nothing where none was."""
    if not skipped:
        return []
    count = "One image was" if len(skipped) == 1 else f"{len(skipped):,} images were"
    return [f"{count} corrupt and left out: {', '.join(skipped[:10])}{', …' if len(skipped) > 10 else ''}."]


def reproduction(config: Config | TextsConfig) -> tuple[str, str]:
    """The command that makes these results, and a sentence about it."""
    how = "In a clone of the repository, with the configuration below saved as experiment.yaml"
    if config.experiment == type(config).model_fields["experiment"].default:
        how += f" (or, if {DEFAULTS[type(config)]} is unchanged, by make reproduce alone)"
    return "make reproduce CONFIG=experiment.yaml", how + ":"


def shown_config(config: Config | TextsConfig) -> str:
    """The merged configuration without what belongs to a machine: where data lie, who carries the jobs."""
    values = config.model_dump(mode="json", exclude={"data_root", "launcher"})
    for section, key in (("data", "path"), ("model", "name")):
        place = values[section][key]
        if place and PurePath(place).is_absolute():
            values[section][key] = PurePath(place).name
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
