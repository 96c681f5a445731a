"""What a reader does in a browser: run a lesson and move its widget, and read the site with the network off."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the extra 'browser'")
ROOT = Path(__file__).parents[2]
SITE, SLIDES = ROOT / "build/site", ROOT / "build/slides"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
MINUTES = 60_000  # milliseconds
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as tool:
        started = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab of its own on a copy of the lessons; its address."""
    shutil.copytree(ROOT / "notebooks/lessons/solutions", tmp_path / "lessons")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path / 'lessons'}"]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *words]
    log = (tmp_path / "server.log").open("w")
    server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 180
    while time.monotonic() < until:
        with suppress(urllib.error.URLError):
            urllib.request.urlopen(f"{address}/api", timeout=5)
            break
        time.sleep(0.5)
    yield address
    server.terminate()
    server.wait(30)
    log.close()


def test_a_lesson_runs_in_jupyterlab_and_its_widget_moves_by_mouse_and_keyboard(browser, lab):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(f"{lab}/lab/tree/07_water_filling.ipynb?reset", timeout=3 * MINUTES)
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=3 * MINUTES)
    idle = page.get_by_text("Python 3 (ipykernel) | Idle")
    idle.wait_for(timeout=3 * MINUTES)  # without a kernel, nothing runs
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click(timeout=MINUTES)
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click(timeout=MINUTES)
    handle, picture = page.locator(".noUi-handle").first, page.locator("img.widget-image").first
    picture.wait_for(state="attached", timeout=5 * MINUTES)
    idle.wait_for(timeout=5 * MINUTES)  # a busy kernel draws nothing
    handle.scroll_into_view_if_needed(timeout=MINUTES)

    def moves(change):
        before = picture.get_attribute("src")
        change()
        page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), before])

    page.set_default_timeout(MINUTES)
    moves(lambda: handle.press("ArrowRight"))
    track = page.locator(".noUi-base").first
    middle = track.bounding_box()["height"] / 2
    moves(lambda: track.click(position={"x": 10, "y": middle}, force=True))
    page.get_by_text("Right.", exact=True).first.wait_for(state="attached", timeout=5 * MINUTES)
    assert [error for error in errors if "favicon" not in error] == []


@pytest.mark.skipif(not SITE.exists(), reason="build/site is not there: make site")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_reads_without_a_network(browser, scheme):
    context = browser.new_context(offline=True, color_scheme=scheme)
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((SITE / "index.html").as_uri())
    page.get_by_role("link", name="Lesson 4").first.click()
    page.locator("mjx-container").first.wait_for(timeout=MINUTES)  # a formula
    loaded = page.locator("main img, article img").evaluate_all(
        "images => images.map(i => [i.naturalWidth > 0, i.alt])"
    )
    assert len(loaded) >= 3 and all(width and len(alt) > 40 for width, alt in loaded)
    page.goto((SITE / "search.html").as_uri() + "?q=Borda")
    page.get_by_role("link", name="Several sources").first.wait_for(timeout=MINUTES)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []
    context.close()


@pytest.mark.skipif(not SLIDES.exists(), reason="build/slides is not there: make slides")
def test_the_slides_turn_without_a_network(browser):
    context = browser.new_context(offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((SLIDES / "04_equation_1.html").as_uri())
    page.locator(".reveal.ready").wait_for(timeout=MINUTES)
    places = set()
    for _ in range(4):
        page.keyboard.press("Space")
        page.wait_for_timeout(1000)
        places.add(page.url)
    assert len(places) >= 3
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    context.close()
