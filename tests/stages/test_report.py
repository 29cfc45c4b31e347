import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sama.errors import SamaError
from sama.files import read_json, read_parquet, write_json, write_parquet
from sama.report import page
from sama.report.page import Drawing
from sama.scores import SCORES
from sama.stages import report
from tests.pages import Page
from tests.planted_results import build, edit_summary

AGREEMENT = {"rank_correlation", "shared"}
ALL = AGREEMENT | {"accuracy", "cost_and_accuracy", "detection", "images", "learning_curves", "scatter", "search_cost"}
ALL |= {"suspects", "weights"}


def run(results: Path, config, out: Path | None = None) -> Page:
    out = out or results / "report"
    report.run(results=results, out=out, config=config)
    return Page((out / "index.html").read_text(encoding="utf-8"))


def figures(results: Path) -> set[str]:
    return {path.stem for path in (results / "report/figures").iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A results folder with its report; tests that change it take a copy."""
    root = tmp_path_factory.mktemp("made")
    config = build(root, train=90)
    page = run(root / "planted", config)
    return root / "planted", config, page


@pytest.fixture
def copy(made, tmp_path):
    results, config, _ = made
    shutil.copytree(results, tmp_path / "planted")
    return tmp_path / "planted", config


def test_the_page_needs_nothing_else(made):
    results, _, page = made
    assert figures(results) == ALL
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object")
        if tag in ("img", "link"):
            assert attributes.get("src", attributes.get("href", "")).startswith("data:")
        if tag == "a":
            assert attributes["href"].startswith(("#", "https://arxiv.org/", "../suspects/"))
    html = (results / "report/index.html").read_text()
    assert "@import" not in html
    assert "url(" not in html


def test_every_link_inside_the_page_leads_somewhere(made):
    _, _, page = made
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"}
    assert links
    assert links <= ids


def test_every_picture_says_what_it_shows(made):
    _, _, page = made
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == len(ALL)
    assert all(len(attributes["alt"]) > 20 for attributes in pictures)


def test_the_numbers_are_those_of_the_summary(made):
    results, _, page = made
    summary = read_json(results / "summary.json")
    for method, by_ratio in summary["pruned"].items():
        for entry in by_ratio.values():
            assert f"{100 * sum(entry['accuracy']) / 3:.1f} ± " in page.text, method
    for values in summary["noise_detection"].values():
        assert f"{sum(values['auc']) / 3:.3f} ± " in page.text
    assert "make reproduce CONFIG=experiment.yaml" in page.text


def test_the_noise_left_after_pruning_is_counted(made):
    results, _, page = made
    kept = set(read_parquet(results / "kept/seed0/el2n_0.7.parquet", ["sample_id"])["sample_id"])
    manifest = read_parquet(results / "data/seed0/manifest.parquet", ["sample_id", "split", "label", "clean_label"])
    wrong = (manifest["label"] != manifest["clean_label"]).to_numpy()
    fraction = float(wrong[manifest["sample_id"].isin(list(kept)).to_numpy()].mean())
    table = re.search(r"Mislabelled among the kept examples.*?EL2N (.*?) Margin", page.text)
    assert table
    others = float(re.findall(r"([\d.]+) ±", table[1])[-1])
    assert abs(others - 100 * fraction) < 8  # seed 0 lies near the mean over seeds
    assert others > 40


def test_another_process_elsewhere_writes_the_same_bytes(made, tmp_path):
    results, _, _ = made
    command = (
        "from pathlib import Path; from sama.config import load; from sama.stages import report; import sys; "
        "report.run(results=Path(sys.argv[1]), out=Path(sys.argv[2]), config=load([Path(sys.argv[1])/'config.yaml']))"
    )
    arguments = [sys.executable, "-c", command, str(results), "elsewhere"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    subprocess.run(arguments, check=True, cwd=tmp_path, env=environment)
    assert contents(tmp_path / "elsewhere") == contents(results / "report")


def test_nothing_of_the_machine_is_told(tmp_path):
    secret = tmp_path / "secret-folder"
    config = build(
        tmp_path,
        train=60,
        seeds=(0,),
        overrides={
            "data_root": str(secret),
            "data": {"source": "image_folder", "path": str(secret / "<b>photographs")},
        },
        clean_known=False,
    )
    run(tmp_path / "planted", config)
    html = (tmp_path / "planted/report/index.html").read_text()
    assert "secret-folder" not in html
    assert str(tmp_path) not in html
    assert "path: &lt;b&gt;photographs" in html
    assert "launcher" not in html


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"clean_known": False}, {"detection"}),
        ({"noise": 0.0}, {"detection"}),
        ({"seeds": (3,), "ratios": (0.5,), "methods": ("meta_weight",)}, AGREEMENT),
        ({"methods": ("random", "el2n")}, {"images", "scatter", "suspects", "weights"}),
        (
            {
                "channels": 3,
                "size": 40,
                "classes": 100,
                "class_names": [f"kind <{i}> with a long name" for i in range(100)],
            },
            set(),
        ),
    ],
    ids=["no-clean-labels", "no-noise", "one-of-each", "no-meta-weight", "colour-100-classes"],
)
def test_other_experiments_make_a_page_too(tmp_path, options, missing):
    config = build(tmp_path, **{"train": 60, "seeds": (0, 1), **options})
    page = run(tmp_path / "planted", config)
    assert figures(tmp_path / "planted") == ALL - missing
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(ALL - missing)
    for word in ("nan", "None", "inf"):
        assert not re.search(rf"\b{word}\b", page.text.split("Show the configuration")[0])


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are made but not written as SVG, which takes most of the time."""
    monkeypatch.setattr(report.style, "to_svg", lambda figure: "<svg/>")


def test_all_scores_make_a_page(tmp_path, unrendered):
    config = build(tmp_path, train=60, seeds=(0,), ratios=(0.3, 0.5, 0.7, 0.9), methods=tuple(SCORES), noise=0.2)
    page = run(tmp_path / "planted", config)
    assert figures(tmp_path / "planted") == ALL | {"scatter_loss_only"}
    assert "Not drawn: 50 % pruned" in page.text
    assert "The uncertainty is that of the other meta training" in page.text
    assert "Every retraining takes 100 optimizer steps" in page.text
    cost = re.search(r"Cost of the scores, in full trainings: (.*?)\.(?= |$)", page.text)
    assert cost
    assert cost[1] == "from 0.0 (random) to 2.7 (meta weight)"


@pytest.fixture
def quick(monkeypatch):
    """Blank pictures, where a test is not about them."""
    monkeypatch.setattr(report, "draw", lambda results: dict.fromkeys(ALL, Drawing("<svg/>", "alt", "caption")))


def test_pictures_of_an_earlier_run_go_away(copy, quick):
    results, config = copy
    stale = results / "report/figures/renamed.svg"
    stale.write_text("<svg/>")
    run(results, config)
    assert figures(results) == ALL


@pytest.mark.parametrize(
    "name",
    [
        "summary.json",
        "data/dataset.json",
        "data/images.npy",
        "data/seed1/manifest.parquet",
        "data/seed1/manifest.json",
        "meta/seed2/weights.parquet",
        "meta/seed0/metrics.jsonl",
        "scores/seed1/el2n.parquet",
        "kept/seed1/margin_0.5.parquet",
        "models/seed0/full/metrics.jsonl",
        "models/seed1/el2n_0.7/summary.json",
        "suspects/suspect_labels.csv",
        "suspects/summary.json",
    ],
)
def test_a_missing_file_is_named_and_the_old_report_stays(copy, name):
    results, config = copy
    before = contents(results / "report")
    (results / name).unlink()
    with pytest.raises(SamaError, match=re.escape(f"{results / name}: missing")) as caught:
        report.run(results=results, out=results / "report", config=config)
    assert "\n" not in str(caught.value)
    assert contents(results / "report") == before


def test_a_summary_with_a_short_list_is_refused(copy):
    results, config = copy
    edit_summary(results, lambda summary: summary["pruned"]["random"]["0.3"]["accuracy"].pop())
    with pytest.raises(SamaError, match=r"summary.json: pruned.random.0.3.accuracy: expected 3 numbers, one a seed"):
        report.run(results=results, out=results / "report", config=config)


def test_a_summary_without_a_part_is_refused(copy):
    results, config = copy
    edit_summary(results, lambda summary: summary.pop("search_cost"))
    with pytest.raises(SamaError, match=r"summary.json: expected a key 'search_cost'"):
        report.run(results=results, out=results / "report", config=config)


def test_scores_of_other_examples_are_refused(copy):
    results, config = copy
    path = results / "scores/seed1/margin.parquet"
    write_parquet(path, pd.DataFrame(read_parquet(path, ["sample_id", "score"])[1:]))
    with pytest.raises(SamaError, match=r"margin.parquet: expected the training examples of .*, but digits/\d+ stands"):
        report.run(results=results, out=results / "report", config=config)


def test_a_kept_list_of_other_examples_is_refused(copy):
    results, config = copy
    path = results / "kept/seed1/margin_0.5.parquet"
    kept = read_parquet(path, ["sample_id"])["sample_id"].tolist()
    for odd in (["elsewhere/7", *kept[1:]], [*kept, kept[0]], []):
        write_parquet(path, pd.DataFrame({"sample_id": odd}, dtype=str))
        with pytest.raises(SamaError, match=r"margin_0.5.parquet: expected some training examples of .*, once each"):
            report.run(results=results, out=results / "report", config=config)


def test_broken_metrics_are_named_by_line(copy):
    results, config = copy
    with (results / "models/seed0/full/metrics.jsonl").open("a") as stream:
        stream.write('{"step": 125, "train/lo')
    with pytest.raises(SamaError, match=r"metrics.jsonl, line 5: not valid JSON"):
        report.run(results=results, out=results / "report", config=config)


def test_a_disk_that_fills_up_leaves_no_page(copy, quick, monkeypatch):
    results, config = copy
    write, written = page.write_text, []

    def full(path, text):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, text)

    monkeypatch.setattr(page, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        report.run(results=results, out=results / "report", config=config)
    assert not (results / "report/index.html").exists()
    assert figures(results) == ALL  # each is written beside its place and moved there: nothing half-written is left


def test_suspect_labels_are_counted_checked_and_linked(made):
    results, _, page = made
    facts = read_json(results / "suspects/summary.json")
    (all_of_them,) = facts["checked"]["first"]
    count, wrong, right = all_of_them["suspects"], all_of_them["wrong"], all_of_them["suggestion_right"]
    assert f"{count} of {facts['images']} images have a label that the meta-trained models of seed 0 con" in page.text
    shares = [wrong / count, right / count, wrong / facts["checked"]["wrong_labels"]]
    said = re.search(r"Of all wrong labels all suspects ([\d.]+) % ([\d.]+) % ([\d.]+) %", page.text)
    assert said
    assert [float(share) for share in said.groups()] == pytest.approx([100 * share for share in shares], abs=0.05)
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {"../suspects/kept.csv", "../suspects/suspect_labels.csv"} <= links
    sheet = (results / "report/figures/suspects.svg").read_text()
    marked = sheet.count('id="wrong-label')
    assert marked == wrong  # all suspects of this folder fit on the sheet


def test_suspects_without_clean_labels_claim_nothing(tmp_path, unrendered):
    classes = ["NA", "1", "null"]
    config = build(tmp_path, train=40, seeds=(0,), classes=3, class_names=classes, clean_known=False)
    page = run(tmp_path / "planted", config)
    assert "Suspects that are wrong" not in page.text
    assert "Clean labels are not known here: which of the two is right is for the eye to judge." in page.text


def test_images_that_were_left_out_are_named(copy, quick):
    results, config = copy
    assert "corrupt and left out" not in run(results, config).text
    facts = read_json(results / "data/dataset.json")
    write_json(results / "data/dataset.json", {**facts, "skipped": ["cat/1.jpg", "dog/2.jpg"]})
    assert "2 images were corrupt and left out: cat/1.jpg, dog/2.jpg." in run(results, config).text


def test_a_broken_table_of_suspects_is_named(copy, quick):
    results, config = copy
    path = results / "suspects/suspect_labels.csv"
    path.write_text(path.read_text().replace("suggested", "guessed"))
    with pytest.raises(SamaError, match=r"suspect_labels.csv: expected a column 'suggested', got sample_id, observed"):
        run(results, config)


def test_overlapping_splits_are_counted(copy, quick):
    results, config = copy
    path = results / "data/seed1/manifest.json"
    facts = read_json(path)
    assert "No two splits share an image" in run(results, config).text
    facts["overlap"]["train/test"]["shared"] = 4
    write_json(path, facts)
    page = run(results, config)
    assert "train and test 0–4" in page.text
    assert "No two splits share an image" not in page.text
