"""The views on the page: only pictures and text, whatever the file beside the results holds."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from report.sample import run
from report.test_page import HOSTILE, Page

from bancache.errors import DataError
from bancache.report import write_report
from bancache.report.page import render
from bancache.report.sample_views import clean_views, read_views

PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n" + bytes(20)  # what a PNG begins with is all that the page looks at
).decode()


def sample(**changes: Any) -> dict[str, Any]:
    view = {
        "view": 7,
        "png": PNG,
        "top": [["cat", 0.75], ["dog", 0.2], ["cow", 0.001], ["hen", 0.0]],
        **changes,
    }
    return {"generation": 0, "images": [{"sample": 12, "label": "dog", "views": [view]}]}


def test_a_view_stands_beside_its_soft_targets_with_its_own_class_in_bold() -> None:
    page = Page(render([run(0, 0, 0.5)], sample()))
    assert page.inside("h3") == ["Image 12, class dog"]
    assert (page.inside("b"), page.inside("span")) == (["dog"], ["cat", "cow", "hen"])
    assert ("alt", "dog, view 7") in page.attributes
    assert [value for key, value in page.attributes if key == "width"] == ["75", "20", "0.1", "0"]
    assert page.inside("small") == ["75 %", "20 %", "0.1 %", "0.0 %"]


def test_pictures_are_allowed_only_on_a_page_that_has_some() -> None:
    records = [run(0, 0, 0.5)]
    assert "img-src" not in render(records)
    with_views = Page(render(records, sample()))
    assert (
        "content",
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    ) in with_views.attributes
    sources = [value for key, value in with_views.attributes if key == "src"]
    assert sources == [f"data:image/png;base64,{PNG}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"png": None},
        {"png": "https://example.org/x.png"},
        {"png": PNG + '" onerror=alert(1)'},
        {"png": base64.b64encode(b"<svg/>").decode()},
    ],
)
def test_what_is_no_png_is_not_shown(changes: dict[str, Any]) -> None:
    assert clean_views(sample(**changes)) == []


@pytest.mark.parametrize("broken", [{}, {"images": 3}, {"images": [3, {}, {"views": [None]}]}])
def test_what_is_missing_is_left_out(broken: dict[str, Any]) -> None:
    assert clean_views(broken) == []


def test_an_image_without_names_is_shown() -> None:
    page = Page(render([run(0, 0, 0.5)], {"images": [{"views": [{"png": PNG}]}]}))
    assert page.inside("h3") == ["Image ?, class"]
    assert page.tags.count("img") == 1


def test_hostile_names_are_only_text() -> None:
    hostile = sample(top=[[HOSTILE, 0.5], ["x"], 3, [1, HOSTILE]], view=HOSTILE)
    hostile["images"][0]["label"] = hostile["images"][0]["sample"] = HOSTILE
    page = Page(render([run(0, 0, 0.5)], hostile))
    assert page.tags.count("img") == 1
    assert page.tags.count("script") == 0
    assert not [key for key, _ in page.attributes if key.startswith("on")]


def test_the_first_seeds_views_are_shown_and_a_broken_file_is_named(tmp_path: Path) -> None:
    assert read_views(tmp_path) is None
    for seed in (10, 2):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}" / "views.json").write_text(json.dumps({**sample(), "generation": seed}))
    found = read_views(tmp_path)
    assert found is not None
    assert found["generation"] == 2
    (tmp_path / "results.jsonl").write_text(json.dumps(run(0, 0, 0.5)) + "\n")
    assert "What the cache holds" in write_report(tmp_path, tmp_path / "page.html").read_text()
    (tmp_path / "seed2" / "views.json").write_text("{")
    with pytest.raises(DataError, match=r"seed2/views\.json"):
        write_report(tmp_path, tmp_path / "page.html")


def test_what_was_done_in_a_view_is_said_below_it() -> None:
    page = Page(render([run(0, 0, 0.5)], sample(params=f"crop 0,0 8x8, {HOSTILE}")))
    (said,) = (text for text in page.inside("p") if text.startswith("crop "))
    assert said.startswith("crop 0,0 8x8, <script>")
    assert page.tags.count("script") == 0
    assert not any("crop" in text for text in Page(render([run(0, 0, 0.5)], sample())).inside("p"))
