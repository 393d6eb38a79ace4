"""Of a born-again student's gain, what comes from its teacher? The tables and the figure of docs/study.md about the arms."""

from __future__ import annotations

import statistics
from pathlib import Path

from bancache import report
from bancache.report.arms import ArmTable
from bancache.report.charts import arm_chart
from bancache.report.families import arm_results
from bancache.report.folders import read_results
from bancache.report.formats import difference_text
from bancache.report.power import seeds_needed
from bancache.report.rendering import arms_to_markdown, environment
from bancache.report.results import Record
from bancache.report.tables import differences_of
from benchmarks.harness import RESULTS
from benchmarks.readme import read_lines

FOLDER = RESULTS / "study-resnet-8"
CHOICE = RESULTS / "study" / "choice.jsonl"

# What else is compared than every arm with the baseline. Written before the first run.
PAIRS = (
    *(("ban-1", other) for other in ("teacher-alone", "labels-smooth-10")),
    *(("ban-1", other) for other in ("smooth-05", "smooth-10", "smooth-20", "smooth-mean")),
    *(("ban-1", other) for other in ("max-uniform", "permute-rest", "shuffle-in-class", "class-mean")),
    ("ban-1-common", "weight-2-common"),
    ("half-common", "labels"),
    ("ban-2", "ban-1"),
    ("ban-3", "ban-2"),
    ("ban-ensemble", "ban-3"),
    ("ban-ensemble", "labels-ensemble"),
)

CHART = """{% from "charts.svg.j2" import arm_chart %}
{{ arm_chart("Test error against " ~ arms.baseline ~ " in percentage points, 95 % intervals", arms, frame) }}"""


def blocks(folder: Path = FOLDER) -> dict[str, str]:
    """Return the text between the marks of the arms."""
    records, _, table = read_results([folder])
    assert table is not None
    return {"choice": choice(), "arms": arms_to_markdown(table).strip(), "arm_pairs": pairs(records)}


def choice(file: Path = CHOICE) -> str:
    """Return a table of each arm's own point, and of what it gives up at the point that suits ``labels``."""
    lines = read_lines(file)
    common = next(
        (line["lr"], line["weight_decay"]) for line in lines if line["arm"] == "labels" and line["chosen"]
    )
    rows = [
        f"| arm | learning rate | weight decay | error, % | at {common[0]:g} and {common[1]:g} | points tried |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in dict.fromkeys(line["arm"] for line in lines):
        tried = {
            (line["lr"], line["weight_decay"]): 100 * line["error"] for line in lines if line["arm"] == name
        }
        rate, decay = own = min(tried, key=tried.__getitem__)
        rows.append(
            f"| {name} | {rate:g} | {decay:g} | {tried[own]:.2f} | {tried[common]:.2f} | {len(tried)} |"
        )
    return "\n".join(rows)


def pairs(records: list[Record]) -> str:
    """Return a table of the differences between two arms, paired by seed."""
    results = arm_results(records)
    lines = [
        "| arm | against | difference, points | seeds | seeds for ½ point |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, other in PAIRS:
        for difference in differences_of(results, [(name, results[other])]):
            count = len(difference.values)
            needed = seeds_needed(statistics.stdev(difference.values)) if count > 2 else ""
            lines.append(f"| {name} | {other} | {difference_text(difference)} | {count} | {needed} |")
    return "\n".join(lines)


def drawing(table: ArmTable) -> str:
    """Return a standalone SVG of every arm's difference to the baseline, in the report's own style, light and dark."""
    chart = environment("html").from_string(CHART).render(arms=table, frame=arm_chart(table)).strip()
    style = (
        Path(report.__file__).parent / "style.css"
    ).read_text() + "svg { max-width: 36rem; font-family: system-ui, sans-serif }\n"
    opening, _, rest = chart.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg">\n<style><![CDATA[\n{style}]]></style>{rest}\n'
