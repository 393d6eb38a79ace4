from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report.sample import Record, ensemble, rich_study, run, study

from bancache.errors import DataError
from bancache.report import write_report
from bancache.report.page import render

VOID = {"meta", "br", "hr", "img"}
HOSTILE = "<script>alert(1)</script>\"'&\x00\u202e</style><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Reads a page and refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self._words: list[tuple[tuple[str, ...], str]] = []
        self._classes: list[tuple[str, str]] = []
        self.feed(text.replace("<wbr>", ""))  # places where a path may break
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._classes.append((tag, dict(attrs).get("class") or ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if (words := plain(data)) and "style" not in self.open:
            self._words.append((tuple(self.open), words))

    @property
    def text(self) -> str:
        return "\n".join(words for _, words in self._words)

    def inside(self, tag: str) -> list[str]:
        """Return the texts directly inside elements of a tag."""
        return [words for path, words in self._words if path[-1:] == (tag,)]

    def classes(self, tag: str) -> list[str]:
        """Return the class of each element of a tag."""
        return [found for name, found in self._classes if name == tag]

    def sections(self) -> list[str]:
        return self.inside("h2")


def plain(text: str) -> str:
    """Return the text with plain spaces, hyphens and minus signs."""
    for special, usual in (("\N{MINUS SIGN}", "-"), ("\N{NON-BREAKING HYPHEN}", "-")):
        text = text.replace(special, usual)
    return " ".join(text.split())


HEADINGS = (
    "Test error",
    "Against the baseline",
    "Training",
    "Calibration",
    "Caches",
    "Training speed",
    "Lineage",
    "Recipe",
    "Environment",
    "Run it again",
)


def test_a_full_study_fills_every_part_of_the_page() -> None:
    page = Page(render(rich_study()))
    assert page.sections() == list(HEADINGS)
    for shown in (
        "56.40 ± 0.20",
        "-2.94 to -0.46",
        "n = 2",
        "148 MB",
        "91.36",
        "root2-l64",
        "2.3 × 10⁻⁴",
        "99.950 %",
        "3,160",
        "850",
        "1 min 30 s",
        "8.30 %",
        "78,042",
        "2.11.0",
        "gpus count",
        "41.90 % → 43.00 %",
        "bancache generations --out runs/x",
        "abababababab…",
    ):
        assert shown in page.text, shown


def test_the_curves_end_with_the_test_of_the_last_epoch() -> None:
    # Of BAN-1: mean accuracy 43.6 % in the record's test, none in the last line of its history.
    assert "BAN-1 ends at 43.6 (mean of 3)" in Page(render(rich_study())).text


def test_a_seed_that_was_tested_at_its_end_alone_has_no_curve_and_hides_none() -> None:
    def history(tested: set[int]) -> list[Record]:
        return [
            {"epoch": e, "loss": 2.0 / e} | ({"test_accuracy": 0.1 * e} if e in tested else {})
            for e in (1, 2, 3)
        ]

    records = [run(1, 0, 0.7, history=history({1, 2, 3})), run(1, 1, 0.6, history=history({3}))]
    text = Page(render(records)).text
    assert "BAN-1 ends at 30 (mean of 1)" in text
    assert "no line of test accuracy" in text
    assert "no line of test accuracy" not in Page(render(records[:1])).text


@pytest.mark.parametrize(
    ("records", "headings"),
    [
        ([run(0, 0, 0.5)], ["Test error"]),
        (study(), ["Test error", "Against the baseline"]),
        ([ensemble(2, 0, 0.5)], []),
        ([{"kind": "dump"}], []),
        ([{"kind": "dump", "generation": 0, "bytes": 10, "fidelity": {"x": 1, "1": {}}}], ["Caches"]),
        ([run(0, 0, 0.5, history=[{"epoch": 1, "loss": 2.0}])], ["Test error"]),
        ([run(0, 0, 0.5, history=[{"epoch": 1, "loss": None}, {"epoch": 2}, 3])], ["Test error"]),
        ([run(0, 0, 0.5, seconds=3.0)], ["Test error", "Training speed"]),
        ([run(1, 0, 0.5, lineage=[], recipe={}, environment={}, command="")], ["Test error"]),
        (
            [run(1, 0, 0.5, history=None, lineage=None, recipe=None, environment="x")],
            ["Test error", "Environment"],
        ),
    ],
)
def test_what_is_missing_is_not_shown(records: list[Record], headings: list[str]) -> None:
    assert Page(render(records)).sections() == headings


def test_the_page_requests_nothing() -> None:
    text = render(rich_study())
    page = Page(text)
    assert set(page.tags) & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    assert not [key for key, _ in page.attributes if key in ("src", "style") or key.startswith("on")]
    links = [value for key, value in page.attributes if key == "href"]
    assert links == [f"#part{part}" for part in range(1, len(HEADINGS) + 1)]
    assert "http" not in re.sub("http-equiv", "", text)
    assert "url(" not in text
    assert "@import" not in text
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def _poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_poisoned(inner) for inner in value]
    return HOSTILE if isinstance(value, str) and value not in ("run", "dump", "ensemble") else value


def test_hostile_strings_are_only_text() -> None:
    records = [_poisoned(record) for record in rich_study()]
    records.append({**records[0], "environment": {HOSTILE: HOSTILE}, "loss": HOSTILE + "2"})
    text = render(records)
    page = Page(text)
    assert set(page.tags) & {"script", "img"} == set()
    assert page.tags.count("style") == 1
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "<script>alert(1)</script>" in page.text
    assert HOSTILE not in text


def test_a_number_that_no_chart_can_hold_is_none() -> None:
    records = rich_study()
    wild = [{"epoch": 1, "loss": 1e308}, {"epoch": 2, "loss": -1e308}, {"epoch": 5e-324, "loss": 1.0}]
    for record in records:
        record |= {"history": wild} if record["kind"] == "run" else {}
        record |= {"views": 1e300, "samples": 1e300, "images_per_second": 5e-324}
    sound = [{**record, "history": [], "views": None, "samples": None} for record in records]
    wild_page, plain_page = (Page(render(each)).text for each in (records, sound))
    assert "nan" not in wild_page
    assert "Training loss" not in wild_page
    assert len(wild_page) >= len(plain_page)


def test_a_half_character_from_json_does_not_stop_the_page(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps(run(0, 0, 0.5, model="\ud800")) + "\n")
    assert write_report(tmp_path, tmp_path / "page.html").exists()


def test_the_same_records_give_the_same_bytes() -> None:
    assert render(rich_study()) == render(rich_study())


def test_the_report_of_a_folder_is_that_of_its_results_file(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(record) + "\n" for record in rich_study()))
    out = tmp_path / "new" / "page.html"
    assert write_report(tmp_path, out) == out
    assert out.read_text() == render(rich_study())
    assert write_report(results, tmp_path / "again.html").read_text() == out.read_text()
    # Nothing half-written stays beside it.
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("content", ["", '{"kind": "note"}\n'])
def test_results_without_a_record_are_refused_with_a_hint(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.jsonl").write_text(content)
    out = tmp_path / "page.html"
    with pytest.raises(DataError, match=r"results\.jsonl") as caught:
        write_report(tmp_path, out)
    assert caught.value.hint
    assert not out.exists()


def test_a_missing_results_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.jsonl"):
        write_report(tmp_path, tmp_path / "page.html")


def test_the_import_of_the_report_is_light() -> None:
    code = "import sys, bancache.report; print({'torch', 'scipy', 'zarr', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
