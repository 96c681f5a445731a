"""What a reader does in a browser: run a lesson and move its widget, as a notebook and as a page, and read offline."""

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
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


@contextmanager
def served(folder, program, *words):
    """A Jupyter server of its own on a copy of the lessons; its address."""
    shutil.copytree(ROOT / "notebooks/lessons/solutions", folder / "lessons")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", program, "--no-browser", *(word.format(port=port) for word in words)]
    log = (folder / "server.log").open("w")
    server = subprocess.Popen(command, cwd=folder / "lessons", stdout=log, stderr=log)
    until = time.monotonic() + 180
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            break
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(30)
    log.close()


@pytest.fixture
def lab(tmp_path):
    with served(
        tmp_path, "jupyterlab", "--allow-root", "--ServerApp.port={port}", "--IdentityProvider.token="
    ) as address:
        yield address


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    pytest.importorskip("voila", reason="voila is not installed: the extra 'browser'")
    with served(tmp_path_factory.mktemp("voila"), "voila", "--port={port}", "--show_tracebacks=True", ".") as address:
        yield address


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


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "notebooks/lessons/solutions").glob("*.ipynb")))
def test_a_lesson_is_a_page_of_voila(browser, voila, name):
    """Outputs and widgets without the code; its pages ask for fonts from elsewhere, and read without them."""
    page = browser.new_page(viewport={"width": 1100, "height": 1000})
    page.goto(f"{voila}/voila/render/{name}", timeout=5 * MINUTES)
    last = page.get_by_role("heading", name="Quiz")
    last.wait_for(timeout=5 * MINUTES)
    page.locator(".jp-RenderedImage img, img.widget-image").first.wait_for(timeout=MINUTES)
    assert "Traceback" not in page.locator("body").inner_text()
    if name.startswith("07"):
        picture = page.locator("img.widget-image").first
        before = picture.get_attribute("src")
        page.locator(".noUi-handle").first.press("ArrowRight")
        page.wait_for_function("([image, old]) => image.src !== old", arg=[picture.element_handle(), before])
    page.close()


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
