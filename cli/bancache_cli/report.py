"""``bancache report``: a page from results.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bancache_cli import console, options


def report(
    results: Annotated[
        Path, typer.Argument(help="A folder of `bancache generations`, or its results.jsonl.")
    ],
    out: options.Out = None,
    as_json: options.Json = False,
) -> None:
    """Write one self-contained HTML page: table, curves, calibration, caches, lineage.

    Example: `bancache report runs/x --out page.html`
    """
    from bancache.report import write_report

    folder = results if results.is_dir() else results.parent
    page = write_report(results, out or folder / "page.html")
    if as_json:
        console.show_json({"out": str(page)})
    else:
        console.say(f"page: {page}")
