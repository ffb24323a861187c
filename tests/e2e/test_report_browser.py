"""The report in a real headless Chromium: quiet, sortable, audible, and unmoved by hostile texts. CPU: about 20 s."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import Storage
from tests.workers import report_corpus
from workers.report import write_report

PATIENCE_MS = 300_000  # a busy machine is slow, not wrong


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here; infra/install-chromium.sh installs Debian's")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
            timeout=PATIENCE_MS,
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report whose first utterances say hostile things, and whose names are long."""
    destination = str(tmp_path_factory.mktemp("published"))
    speech = report_corpus.clips(shared_data, digits=4)
    manifest = report_corpus.publish(report_corpus.rows_of(speech, hostile=True), destination)
    manifest = manifest.model_copy(update={"chosen_input": f"raw, as denoising changes conformer:{'/archive' * 12}"})
    return f"file://{write_report(manifest, destination, Storage())}"


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The open page; whatever it complained about, or asked the network for, fails the test."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.set_default_timeout(PATIENCE_MS)
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(f"console {message.type}: {message.text}"))
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("request", lambda request: request.url.startswith("data:") or complaints.append(f"request: {request.url}"))
    tab.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.goto(address)
    yield tab
    tab.close()
    assert complaints == [f"request: {address}"]


def column(page: Any, section: str, index: int) -> list[str]:
    """The cells of a column of a section's first sortable table."""
    cells: list[str] = (
        page.locator(f"#{section} table.sortable")
        .first.locator(f"tbody tr td:nth-child({index + 1})")
        .evaluate_all("cells => cells.map(cell => cell.dataset.value ?? cell.textContent.trim())")
    )
    return cells


def test_tables_sort_by_numbers_and_by_names(page: Any) -> None:
    headings = page.locator("#slices table.sortable").first.locator("th button")
    names, rates = column(page, "slices", 0), [float(one) for one in column(page, "slices", 1)]
    headings.nth(1).click()
    assert [float(one) for one in column(page, "slices", 1)] == sorted(rates, reverse=True)
    headings.nth(1).click()
    assert [float(one) for one in column(page, "slices", 1)] == sorted(rates)
    headings.nth(0).click()
    assert column(page, "slices", 0) == names
    assert page.locator("#slices th[aria-sort=ascending]").count() == 1


def test_players_play_one_at_a_time(page: Any) -> None:
    players = page.locator("audio")
    assert players.count() >= 8
    for at in (0, 1):
        played = players.nth(at).evaluate(
            """async (player) => {
                player.muted = true;
                await player.play();
                await new Promise((heard) => { player.ontimeupdate = () => player.currentTime > 0 && heard(); });
                return { duration: player.duration, error: player.error };
            }"""
        )
        assert played["error"] is None
        assert played["duration"] > 0.2
    assert players.nth(0).evaluate("player => player.paused")


def test_hostile_texts_stay_text(page: Any) -> None:
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1
    assert page.locator("#worst iframe, #worst a, #worst style, .text img").count() == 0
    assert page.locator("body").is_visible()
    said = page.locator("#worst").inner_text()
    assert report_corpus.HOSTILE[0] in said  # in the names of members, which no normaliser touches
    assert "display" in said
    assert "hacked" in said
    assert page.locator("#rejects").inner_text().count("<script>window.hacked = 3</script>") == 3


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("desktop", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
)
def test_it_fits_every_screen(page: Any, tmp_path: Path, name: str, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = int(ground.removeprefix("rgb(").partition(",")[0]) > 128
    assert light == (scheme == "light")
    page.screenshot(path=tmp_path / f"{name}.png")


def test_print_unfolds_everything_and_fits_the_paper(page: Any) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    page.set_viewport_size({"width": 718, "height": 1047})  # A4 at 96 dpi within margins of a centimetre
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.pdf()[:5] == b"%PDF-"
