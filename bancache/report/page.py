"""One HTML file that shows a results file: the finding, the table, the curves, the caches, the recipe.

The file is self-contained: no script, no font, no request. Its policy allows the browser its own style sheet and
pictures only, so a hostile results file can show nothing but text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from bancache.report import caches, training
from bancache.report.arms import ArmTable
from bancache.report.basis import basis_of
from bancache.report.charts import arm_chart, error_chart, reliability_charts
from bancache.report.families import sort_families
from bancache.report.folders import read_results
from bancache.report.rendering import environment
from bancache.report.results import Record
from bancache.report.sample_views import clean_views
from bancache.report.tables import agreement, table_of
from bancache.system.files import make_directory, write_atomically


def write_report(results: Path | Sequence[Path], out: Path) -> Path:
    """Write the page of a results file, or of the folder that has one, and return its path.

    Several folders hold seeds of one study; see ``read_results`` for what is refused.
    """
    found = read_results([results] if isinstance(results, Path) else results)
    make_directory(out.parent)
    write_atomically(out, render(*found).encode())
    return out


def render(
    records: Sequence[Record], views: Mapping[str, Any] | None = None, arms: ArmTable | None = None
) -> str:
    """Return the page of these records as HTML, with the table of a study and the sample views if there are any."""
    families = sort_families(records)
    table = table_of(families)
    dumps = caches.dumps_of(records)
    bases = [basis_of(family, records) for family in families]
    page = environment("html").get_template("page.html.j2")
    return page.render(
        style=resources.files("bancache.report").joinpath("style.css").read_text(),
        records=records,
        table=table,
        arms=arms,
        arm_chart_of=arm_chart,
        contents=[],
        bases=bases,
        families=list(zip(families, table.rows, strict=True)),
        error_chart_of=error_chart,
        reliability_charts_of=reliability_charts,
        curves_of=training.curves,
        agreement_of=agreement,
        images=clean_views(views),
        dumps=dumps,
        sizes=caches.sizes(dumps),
        fidelity=caches.fidelity(dumps),
        savings=caches.mean_savings(records),
        speeds=training.speeds(families),
        lineages=training.lineages(families),
        recipe=training.facts(records, "recipe"),
        environment=training.facts(records, "environment"),
        commands=training.commands(records),
    )
