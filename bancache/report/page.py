"""One HTML file that tells what a results file holds: the finding, the table, the curves, how it was made.

The file is complete in itself: no script, no font, no request to anywhere. Its policy forbids the browser
everything but its own style sheet and pictures, so that also a hostile results file can only show text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.report.caches import caches_section
from bancache.report.families import Family, sort_families
from bancache.report.figures import family_section, table_section
from bancache.report.finding import find
from bancache.report.listings import count, definitions, section
from bancache.report.markup import Markup, element
from bancache.report.results import Record, read_records
from bancache.report.sample_views import read_sheet, sheet_section
from bancache.report.savings import savings_section
from bancache.report.sections import commands, facts, lineage_section, training_section
from bancache.report.tables import Table, table_of
from bancache.system.files import make_directory, write_atomically

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Only where there is a picture, and only pictures that the page itself holds.
_PICTURES = "; img-src data:"
_KINDS = ("run", "control", "dump", "ensemble", "agreement")


def write_report(results: Path, out: Path) -> Path:
    """Write the page of a results file, or of the folder that has one, and return where it is.

    Raises:
        DataError: There is no results file, nothing in it, or a record that makes no sense.
        StorageError: The disk is full, read-only or failing; an older page is untouched.
    """
    if results.is_dir():
        results = results / "results.jsonl"
    records = [record for record in read_records(results) if record.get("kind") in _KINDS]
    if not records:
        raise DataError(
            f"{results} holds no finished run, cache or ensemble",
            hint="wait until the first net is trained, or name another results file",
        )
    make_directory(out.parent)
    write_atomically(out, render(records, read_sheet(results.parent)).encode())
    return out


def render(records: Sequence[Record], sheet: Mapping[str, Any] | None = None) -> str:
    """Give the page of these records as HTML, with the views of ``sheet`` where there is one."""
    pictures = sheet_section(sheet)
    families = sort_families(records)
    table = table_of(families)
    finding = find(table)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta", http_equiv="Content-Security-Policy", content=_POLICY + (_PICTURES if pictures else "")
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{finding.title} – bancache report"),
        element("style", Markup(resources.files("bancache.report").joinpath("style.css").read_text())),
    )
    top = element(
        "header",
        element("p", "bancache report", class_="over"),
        element("h1", finding.title),
        *(element("p", _unbroken(sentence), class_="lede") for sentence in finding.sentences),
        _setting(records, families) or "",
    )
    body = element(
        "body", top, element("main", *_sections(records, families, table, pictures)), _foot(records)
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _unbroken(sentence: str) -> str:
    """Keep a net's name on one line."""
    return sentence.replace("BAN-", "BAN\N{NON-BREAKING HYPHEN}")


def _sections(
    records: Sequence[Record], families: Sequence[Family], table: Table, pictures: Markup | None
) -> list[Markup]:
    pieces = [
        table_section(table),
        *(
            family_section(family, row, table, records)
            for family, row in zip(families, table.rows, strict=True)
        ),
        pictures,
        caches_section(records),
        savings_section(records),
        training_section(families),
        lineage_section(families),
        section("Recipe", facts(records, "recipe")),
        section("Environment", facts(records, "environment")),
        section("Run it again", commands(records), note="The commands that wrote these results."),
    ]
    return [piece for piece in pieces if piece]


def _setting(records: Sequence[Record], families: Sequence[Family]) -> Markup | None:
    """Say in one glance on what, with what and how often."""
    runs = [record for record in records if record["kind"] == "run"]
    tests = [record["test"].get("samples") for record in records if record["kind"] in ("run", "ensemble")]

    def all_of(name: str) -> str:
        return ", ".join(dict.fromkeys(str(run[name]) for run in runs if run.get(name) is not None))

    return definitions(
        {
            "Data": ", ".join(dict.fromkeys(family.data for family in families)),
            "Net": all_of("model"),
            "Parameters": ", ".join(dict.fromkeys(count(run.get("parameters")) or "" for run in runs)),
            "Loss": all_of("loss"),
            "Views": all_of("views"),
            "Views in the cache": all_of("num_views"),
            "Epochs": all_of("epochs"),
            "Seeds": ", ".join(map(str, sorted({r.seed for family in families for r in family.results}))),
            "Test images": ", ".join(dict.fromkeys(count(samples) or "" for samples in tests)),
        }
    )


def _foot(records: Sequence[Record]) -> Markup:
    times = sorted(str(record["time"]) for record in records if record.get("time"))
    last = f", the last one of {times[-1]}" if times else ""
    said = f"Made by bancache from {len(records)} result lines{last}. Tests are those of the last epoch."
    return element("footer", element("p", said))
