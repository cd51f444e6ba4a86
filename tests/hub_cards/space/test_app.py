"""The page of a Space in a real browser, run as the Hub runs it: `python app.py`, and nothing of this repository."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest


playwright = pytest.importorskip("playwright.sync_api", reason="needs the Python package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
HIDE_OUR_PACKAGES = 'import sys\nsys.modules.update(dict.fromkeys(["m2c", "modeling_m2c", "processing_m2c", "hub_cards"]))\n'
# Long, as other tests run beside it.
SECONDS_TO_START, MILLISECONDS = 240, 120_000


@pytest.fixture(scope="module")
def address(space, tmp_path_factory):
    """Where a copy of the Space is served. It must have nothing to say on its way out."""
    folder, home = tmp_path_factory.mktemp("copy") / "space", tmp_path_factory.mktemp("home")
    shutil.copytree(space, folder)
    (home / "sitecustomize.py").write_text(HIDE_OUR_PACKAGES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(home),
        "HF_HOME": str(home),
        "GRADIO_TEMP_DIR": str(home / "gradio"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(port),
    }
    # From elsewhere: the page finds its files wherever it is started.
    with open(home / "log", "w") as log:
        server = subprocess.Popen([sys.executable, folder / "app.py"], stdout=log, stderr=log, cwd=home, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}", server, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
    assert "Traceback" not in (home / "log").read_text()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            return urllib.request.urlopen(address).close()
        except urllib.error.URLError:
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)


@pytest.fixture
def page(address):
    """The page in a browser that reaches nothing but this machine."""
    asked_elsewhere = []

    def guard(route):
        if route.request.url.startswith(address):
            return route.continue_()
        asked_elsewhere.append(route.request.url)
        route.abort()

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(MILLISECONDS)
        playwright.expect.set_options(timeout=MILLISECONDS)
        page.route(re.compile("^https?:"), guard)
        page.goto(address)
        yield page
        browser.close()
    assert not asked_elsewhere


def shown(page) -> list[tuple[str, str]]:
    """The answers: names of files and captions."""
    images = [item.locator("img") for item in page.get_by_label(re.compile("^Thumbnail")).all()]
    return [(image.get_attribute("src").rpartition("/")[2], image.get_attribute("alt")) for image in images]


def expect_answers(page, ranking: list[tuple[str, float]], reference: Path) -> None:
    expected = [(name, f"{score:.3f}") for name, score in ranking if name != reference.name][:12]
    best = page.get_by_label("Thumbnail 1 of 12").locator(f"img[src$='{expected[0][0]}'][alt='{expected[0][1]}']")
    playwright.expect(best).to_be_visible()
    assert shown(page) == expected


def test_searching(page, space, ranking, tmp_path):
    """From an example to other words, on from an answer, and past what cannot be searched."""
    search, words = page.get_by_role("button", name="Search"), page.get_by_label("What should change?")
    playwright.expect(page.get_by_text("The gallery has 120 pictures")).to_be_visible()
    playwright.expect(page.get_by_label("Thumbnail 12 of 12")).to_be_visible()

    search.click()
    playwright.expect(page.get_by_text("Choose a reference picture first")).to_be_visible()
    assert len(shown(page)) == 12, "the gallery is still there to choose from"

    example = json.loads((space / "settings.json").read_text())["examples"][2]
    reference = space / "gallery" / example["reference"]
    page.get_by_text(example["modification"]).click()
    expect_answers(page, ranking(reference, example["modification"]), reference)
    page.screenshot(path=tmp_path / "answers.png")
    desktop = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    boxes = [item.bounding_box() for item in page.get_by_label(re.compile("^Thumbnail")).all()]
    assert len({box["x"] for box in boxes}) == 2 and all(box["x"] + box["width"] < 390 for box in boxes), "none is cut off"
    page.set_viewport_size(desktop)

    words.fill("is blue")
    words.press("Enter")
    expect_answers(page, ranking(reference, "is blue"), reference)

    chosen = space / "gallery" / shown(page)[1][0]
    page.get_by_label("Thumbnail 2 of 12").click()
    playwright.expect(page.get_by_test_id("image").locator(f"img[src$='{chosen.name}']")).to_be_visible()
    words.fill("")
    search.click()
    expect_answers(page, ranking(chosen, ""), chosen)

    before = shown(page)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    page.get_by_label("Remove Image").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    playwright.expect(page.locator("img[src$='broken.png']")).to_be_attached()
    search.click()
    playwright.expect(page.get_by_text("This file cannot be read as a picture")).to_be_visible()
    assert shown(page) == before
