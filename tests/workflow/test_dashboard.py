"""The dashboard as a person sees it: MLflow's server on a tracked experiment, opened in a headless Chromium.

SAMA_SCREENSHOTS names a folder for the screenshots, so that they can be looked at.
"""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sama.config import load
from sama.stages import track
from tests import results_tree
from tests.tracking_server import TrackingServer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database that the track stage made."""
    root = tmp_path_factory.mktemp("dashboard")
    results = results_tree.make(root)
    track.run(
        results=results,
        database=root / "mlflow.db",
        artifacts=root / "mlartifacts",
        out=root / ".mlflow" / "toy.json",
        config=load([results / "config.yaml"]),
    )
    return root


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("toy")
    assert experiment is not None
    return {str(run.info.run_name): run.info for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """A server as `make ui` starts it."""
    server = TrackingServer(place)
    try:
        server.start()
        yield server.uri
    finally:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1500, "height": 950})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("SAMA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def names_in_order(page: Any, names: list[str]) -> list[str]:
    """Those of `names` that stand on the page as a link, from top to bottom."""
    found = page.locator("[role=grid] a, [role=treegrid] a, [role=row] a").all_inner_texts()
    return [text.strip() for text in found if text.strip() in names]


def test_the_experiment_lists_its_runs(page: Any, address: str, runs: dict[str, Any], screenshots: Path) -> None:
    experiment = runs["toy"].experiment_id
    page.goto(f"{address}/#/experiments/{experiment}/runs?workflowType=machine_learning")
    page.get_by_role("link", name="meta_weight_0.3", exact=True).first.wait_for()
    page.wait_for_timeout(1500)
    page.screenshot(path=screenshots / "experiment.png")
    cells = ["toy", "clean", "full", "meta", "meta_weight_0.3", "meta_weight_0.5", "random_0.3", "random_0.5"]
    assert names_in_order(page, cells) == cells
    assert not names_in_order(page, ["random_0.3 seed 0"])  # folded below its cell


@pytest.mark.parametrize("name", ["full seed 1", "meta_weight_0.3"])
def test_a_run_draws_its_metrics(page: Any, address: str, runs: dict[str, Any], screenshots: Path, name: str) -> None:
    info = runs[name]
    page.goto(
        f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}/model-metrics?workflowType=machine_learning"
    )
    page.get_by_text(name, exact=True).first.wait_for()
    page.get_by_placeholder("Search metric charts").fill("train/loss")
    page.locator("svg .scatterlayer path.js-line[d*=L]").first.wait_for(state="attached")
    page.wait_for_timeout(1500)
    page.screenshot(path=screenshots / f"metrics {name}.png")
    drawn = page.locator("svg .scatterlayer path.js-line").first
    assert (drawn.get_attribute("d") or "").count("L") == 3  # four steps
    box = drawn.bounding_box()
    assert box
    assert box["width"] > 100
    assert box["height"] > 50


def test_the_overview_shows_a_figure(page: Any, address: str, runs: dict[str, Any], screenshots: Path) -> None:
    info = runs["toy"]
    page.goto(
        f"{address}/#/experiments/{info.experiment_id}/runs/{info.run_id}/artifacts/figures/accuracy.svg?workflowType=machine_learning"
    )
    page.get_by_text("accuracy.svg").first.wait_for()
    page.wait_for_timeout(2500)
    page.screenshot(path=screenshots / "figure.png")
    with urllib.request.urlopen(
        f"{address}/get-artifact?path=figures/accuracy.svg&run_uuid={info.run_id}", timeout=30
    ) as answer:
        assert answer.read().decode() == results_tree.FIGURE
    assert page.locator("img[src^='blob:'], img[src*='get-artifact'], .image-container, svg circle").count()
