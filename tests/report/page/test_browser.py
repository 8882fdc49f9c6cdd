"""The page in a browser: nothing fails, nothing is fetched, hovering shows values, in light, dark and narrow windows.

Needs the program chromium (Debian's chromium and chromium-driver) and the extra ``browser``; skipped without them.
Screenshots go to $SCREENSHOTS if that is set.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.page.runs_on_disk import write_runs

webdriver = pytest.importorskip("selenium.webdriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("chromedriver"), reason="needs chromium"),
]
ROOT = Path(__file__).parents[3]
SCROLLED = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
OPENS_IN = 2000  # milliseconds
SMALL = [
    "task.side=7", "task.n_train=40", "task.n_validation=20", "task.n_test=30", "model.d_model=8", "model.heads=2",
    "pretrain.epochs=2", "finetune.epochs=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a real run with everything on it, beside runs made by hand."""
    folder = tmp_path_factory.mktemp("browser")
    settings = [part for change in SMALL for part in ("-s", change)]
    attnprobe("train", *settings, "--probe-every", "2", "--out", folder / "runs" / "real" / "s0", "-q")
    write_runs(folder / "runs")
    attnprobe("report", folder / "runs", "-o", folder / "report.html", "-q")
    return (folder / "report.html").as_uri()


def attnprobe(*arguments: object) -> None:
    command = [sys.executable, "-m", "attnprobe", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page: str) -> Any:
    look(browser)
    for log in ("browser", "performance"):
        browser.get_log(log)  # forget
    browser.get(page)
    return browser


def look(browser, *, width: int = 1280, scheme: str = "light", media: str = "") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def test_opens_at_once_and_asks_for_nothing(opened, page: str, capsys) -> None:
    timing = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    first = opened.execute_script(timing)
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    again = []
    for _ in range(2):  # a busy machine may be slow once
        opened.refresh()
        again.append(opened.execute_script(timing))
    milliseconds = min(first, *again)
    with capsys.disabled():
        print(f"\nthe page was loaded after {milliseconds:.0f} ms")
    assert milliseconds < OPENS_IN
    assert opened.get_log("browser") == [], "no message, so no refusal by the page's own policy either"
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [page]


def test_every_picture_is_there(opened) -> None:
    boxes = opened.execute_script(
        "return [...document.querySelectorAll('figure .panel svg')].map(s => {const b = s.getBoundingClientRect(),"
        " i = s.getBBox(); return [b.width, b.height, i.width, i.height, s.querySelectorAll('.mark').length]})"
    )
    assert len(boxes) > 20
    assert all(min(box) > 0 for box in boxes)
    colours = opened.execute_script(
        "return [...document.querySelectorAll('svg .line, svg .interval')].map(l => getComputedStyle(l).stroke)"
    )
    assert "none" not in colours
    shades = opened.execute_script(
        "return [...document.querySelectorAll('svg rect.mark')].map(l => getComputedStyle(l).fill)"
    )
    assert len(set(shades)) > 10


def test_hovering_shows_the_value(opened) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for selector, number, words in (
        ("svg circle.estimate", 1, ("from scratch", "0.525", "2 seeds")),
        ("svg polyline ~ circle.mark", 0, ("epoch 1:",)),
        ("svg rect.mark", 0, ("row offset", "column offset")),
    ):
        mark = opened.find_elements("css selector", selector)[number]
        opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", mark)
        opened.execute_async_script(SCROLLED)  # scrolling hides the tip, and is told late
        ActionChains(opened).move_to_element(mark).perform()
        tip = opened.find_element("id", "tip")
        assert tip.is_displayed()
        assert all(word in tip.text for word in words), tip.text
        box, size = tip.rect, opened.execute_script("return [innerWidth, scrollY + innerHeight]")
        assert 0 <= box["x"] <= box["x"] + box["width"] <= size[0]
        assert box["y"] + box["height"] <= size[1]
    ActionChains(opened).move_to_element(opened.find_element("tag name", "h1")).perform()
    assert not opened.find_element("id", "tip").is_displayed()


def test_headings_and_names_as_the_browser_sees_them(opened) -> None:
    tree = opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    def of_role(role: str) -> list[dict]:
        return [node for node in tree if node.get("role", {}).get("value") == role and not node.get("ignored")]

    levels = [p["value"]["value"] for node in of_role("heading") for p in node["properties"] if p["name"] == "level"]
    assert levels[0] == 1
    assert max(levels) == 3
    images = of_role("image") or of_role("img")
    assert len(images) > 20
    assert all(node["name"]["value"] for node in images)
    assert all(node["name"]["value"] for node in of_role("table"))
    assert all(node["name"]["value"] for node in of_role("region"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light", {}),
        ("dark", {"scheme": "dark"}),
        ("narrow", {"width": 390}),
        ("print", {"media": "print", "width": 794}),
    ],
)
def test_looks(opened, name: str, options: dict[str, Any]) -> None:
    look(opened, **options)
    paper, ink = (colour(opened, what) for what in ("backgroundColor", "color"))
    assert (sum(paper) < sum(ink)) == (name == "dark")
    assert contrast(paper, ink) > 7
    overflow = opened.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0, "nothing but tables scrolls sideways"
    if name == "print":
        assert not opened.find_element("tag name", "nav").is_displayed()
    size = opened.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
    taken = opened.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
    if folder := os.environ.get("SCREENSHOTS"):
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))
    pdf = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF")


def colour(browser, what: str) -> list[float]:
    text = browser.execute_script(f"return getComputedStyle(document.body).{what}")
    return [float(part) for part in text.partition("(")[2].rstrip(")").split(",")[:3]]


def contrast(one: list[float], other: list[float]) -> float:
    """Of two colours, as the Web Content Accessibility Guidelines define it."""

    def luminance(rgb: list[float]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
