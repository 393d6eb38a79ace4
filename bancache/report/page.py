"""One HTML file that shows a results file: the finding, the table, the curves, the caches, the recipe.

The file is self-contained: no script, no font, no request. Its policy allows the browser its own style sheet and
pictures only, so a hostile results file can show nothing but text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bancache.errors import DataError
from bancache.report import caches, training
from bancache.report.agreement import agreement
from bancache.report.charts import error_chart, reliability_charts
from bancache.report.families import Family, mean, sort_families
from bancache.report.rendering import environment
from bancache.report.results import Record, read_records
from bancache.report.sample_views import clean_views, read_views
from bancache.report.tables import Row, Table, table_of
from bancache.system.files import make_directory, write_atomically

_KINDS = ("run", "control", "dump", "ensemble", "agreement")


def write_report(results: Path, out: Path) -> Path:
    """Write the page of a results file, or of the folder that has one, and return its path."""
    if results.is_dir():
        results = results / "results.jsonl"
    records = [record for record in read_records(results) if record.get("kind") in _KINDS]
    if not records:
        raise DataError(
            f"{results} holds no finished run, cache or ensemble",
            hint="wait until the first model is trained, or name another results file",
        )
    make_directory(out.parent)
    write_atomically(out, render(records, read_views(results.parent)).encode())
    return out


def render(records: Sequence[Record], views: Mapping[str, Any] | None = None) -> str:
    """Return the page of these records as HTML, with the sample views if there are any."""
    families = sort_families(records)
    table = table_of(families)
    dumps = caches.dumps_of(records)
    page = environment("html").get_template("page.html.j2")
    return page.render(
        style=resources.files("bancache.report").joinpath("style.css").read_text(),
        records=records,
        keys=[family.key for family in families],
        runs=[record for record in records if record["kind"] == "run"],
        tests=[record["test"] for record in records if record["kind"] in ("run", "ensemble")],
        seeds=sorted({seed for row in table.rows for cell in row.cells for seed in cell.seeds}),
        table=table,
        parts=[_part(*pair, table, records) for pair in zip(families, table.rows, strict=True)],
        images=clean_views(views),
        teacher=(views or {}).get("generation"),
        dumps=dumps,
        sizes=caches.sizes(dumps),
        fidelity=caches.fidelity(dumps),
        savings=caches.mean_savings(records),
        speeds=training.speeds(families),
        lineages=training.lineages(families),
        recipe=training.facts(records, "recipe"),
        environment=training.facts(records, "environment"),
        commands=training.commands(records),
        times=sorted(str(record["time"]) for record in records if record.get("time")),
    )


def _part(family: Family, row: Row, table: Table, records: Sequence[Record]) -> dict[str, Any]:
    """Return the numbers of one family, whose name is empty if it is the only one."""
    return {
        "name": ", ".join(name for name in table.names(row) if name) if len(table.rows) > 1 else "",
        "row": row,
        "errors": error_chart(row),
        "agreement": agreement(family, records),
        "curves": training.curves(family),
        "reliability": reliability_charts(family),
        "calibration": _calibration(family),
    }


def _calibration(family: Family) -> list[dict[str, Any]]:
    """Return the negative log-likelihood and calibration error of each column; nothing if none has any."""
    lines = [
        {"model": column, "seeds": len(results)}
        | {name: mean([result.test(name) for result in results]) for name in ("nll", "ece")}
        for column, results in family.columns.items()
    ]
    return lines if any(line["nll"] is not None or line["ece"] is not None for line in lines) else []
