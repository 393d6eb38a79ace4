"""The page in a real browser: wide and on a phone, light and dark."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report.browsing import CHROMIUM, Browser, browser

from bancache.report import write_report

LINES = Path(__file__).parents[2] / "benchmarks" / "results" / "cifar100-10k-resnet-8" / "results.jsonl"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the committed study, with views of a picture that is made here."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "results.jsonl").write_bytes(LINES.read_bytes())
    stream = io.BytesIO()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(stream, format="PNG")
    top = [["a_class_with_a_long_name", 0.5], ["cat", 0.3], ["dog", 0.1], ["cow", 0.06], ["hen", 0.04]]
    view = {"view": 1, "png": base64.b64encode(stream.getvalue()).decode(), "top": top}
    image = {"sample": 9_999, "label": "cat", "views": [view] * 4}
    (folder / "seed0").mkdir()
    (folder / "seed0" / "views.json").write_text(json.dumps({"generation": 0, "images": [image] * 3}))
    return write_report(folder, folder / "page.html")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
)
def test_the_page_is_whole_quiet_and_as_wide_as_its_window(
    chromium: Browser, page: Path, width: int, scheme: str
) -> None:
    chromium.open(page, width=width, scheme=scheme)
    seen = chromium.evaluate(
        """({
            wide: document.documentElement.scrollWidth,
            shown: document.documentElement.clientWidth,
            headings: [...document.querySelectorAll("h2")].map(h => h.textContent),
            pictures: [...document.images].map(i => [i.complete, i.naturalWidth, Math.round(i.width)]),
            charts: [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect()).map(r => [r.width, r.height]),
            cut: [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)),
            small: Math.min(...[...document.querySelectorAll("svg text")].map(t => parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)),
            errors: [...document.querySelectorAll(".turn td")].map(e => [e.getBoundingClientRect().right <= innerWidth, e.getBoundingClientRect().width > innerWidth / 2]),
            paper: getComputedStyle(document.body).backgroundColor,
        })"""
    )
    # The events of a late request arrive before the reply to this call.
    chromium.evaluate("document.fonts.ready.then(() => 1)")
    assert (seen["wide"], seen["shown"], seen["cut"]) == (width, width, [])
    assert chromium.happened("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    asked = [request["request"]["url"] for request in chromium.happened("Network.requestWillBeSent")]
    assert [url for url in asked if not url.startswith("data:image/png;base64,")] == [page.as_uri()]
    assert seen["headings"] == [
        "Test error", "Against the baseline", *(h for h in seen["headings"] if h in ("Against the controls", "Agreement")),
        "Training", "Calibration", "What the cache holds", "Caches", "Time saved", "Training speed", "Lineage",
        "Recipe", "Environment", "Run it again",
    ]  # fmt: skip
    assert seen["pictures"] == [[True, 32, 80]] * 12
    assert len(seen["charts"]) == 1 + 4 + 6
    assert seen["small"] >= 11
    # On a phone each model has a row of its own.
    assert seen["errors"] == [[True, width == 390]] * 6
    assert all(side > 80 for chart in seen["charts"] for side in chart)
    assert (seen["paper"] == "rgb(252, 252, 250)") == (scheme == "light")


def test_a_wide_table_scrolls_in_its_own_box_on_a_phone(chromium: Browser, page: Path) -> None:
    chromium.open(page, width=390, scheme="light")
    boxes = chromium.evaluate(
        "[...document.querySelectorAll('.scroll')].map(b => [b.scrollWidth > b.clientWidth, b.tabIndex])"
    )
    assert [True, 0] in boxes
    assert all(tab == 0 for _, tab in boxes)


def test_a_narrow_table_is_whole_on_a_phone(chromium: Browser, page: Path) -> None:
    chromium.open(page, width=390, scheme="dark")
    widths = chromium.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(b => b.innerText.includes('calibration'))"
        ".map(b => b.scrollWidth - b.clientWidth)"
    )
    assert widths == [0]


def test_a_chain_of_nets_unfolds_without_a_script(chromium: Browser, page: Path) -> None:
    chromium.open(page, width=390, scheme="light")
    heights = "[...document.querySelectorAll('details')].map(d => d.getBoundingClientRect().height)"
    closed = chromium.evaluate(heights)
    chromium.evaluate("document.querySelectorAll('summary').forEach(s => s.click())")
    opened = chromium.evaluate(heights)
    assert len(closed) >= 2
    assert all(after > before + 50 for before, after in zip(closed, opened, strict=True))
