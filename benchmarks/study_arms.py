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
from benchmarks.readme import DOCS, read_lines

CHOICE = RESULTS / "study" / "choice.jsonl"

# A learning rate and a weight decay.
Point = tuple[float, float]
Pairs = tuple[tuple[str, str], ...]

# SGD with a loss times f is SGD with the loss at f times the rate and 1 / f of the decay, to the last bit.
SAME = {"weight-2": ("labels", 2.0), "half": ("ban-1", 0.5)}

# What else is compared than every arm with the baseline. Written before the first run.
ARMS: Pairs = (
    *(("ban-1", other) for other in ("teacher-alone", "labels-smooth-10")),
    *(("ban-1", other) for other in ("smooth-05", "smooth-10", "smooth-20", "smooth-mean")),
    *(("ban-1", other) for other in ("max-uniform", "permute-rest", "shuffle-in-class", "class-mean")),
    ("ban-1-common", "weight-2-common"),
    ("half-common", "labels"),
    ("ban-2", "ban-1"),
    ("ban-3", "ban-2"),
    ("ban-ensemble", "ban-3"),
    ("ban-ensemble", "labels-ensemble"),
    # Added after the first seeds: each student beside the model that began as it did.
    ("ban-2", "labels-2"),
    ("ban-3", "labels-3"),
)

# Written before the first run.
LONGER: Pairs = (("ban-1", "labels-80-epochs"), ("labels-80-epochs", "teacher"), ("ban-1", "teacher"))

# Written before the first run.
TABLE_2: Pairs = (
    *(("wrn", other) for other in ("wrn-weight-2", "wrn-own-layers", "densenet")),
    *(("preresnet", other) for other in ("preresnet-labels", "preresnet-weight-2", "densenet")),
)

# Where the results of each study lie, and what is compared in it.
FOLDERS = {
    "arms": RESULTS / "study-resnet-8",
    "longer": RESULTS / "study-longer",
    "match": RESULTS / "study-table-2",
}
PAIRS = {"arms": ARMS, "longer": LONGER, "match": TABLE_2}

STANDALONE = "svg { max-width: 36rem; font-family: system-ui, sans-serif }\n"
CHART = """{% from "charts.svg.j2" import arm_chart %}
{{ arm_chart("Test error against " ~ arms.baseline ~ " in percentage points, 95 % intervals", arms, frame) }}"""


def blocks() -> dict[str, str]:
    """Return the text between the marks of the arms."""
    found = {title: _results(folder) for title, folder in FOLDERS.items()}
    arms = {title: arms_to_markdown(table).strip() for title, (_, table) in found.items()}
    compared = {f"{title}_pairs": pairs(found[title][0], PAIRS[title]) for title in found}
    return {"choice": choice(), **arms, **compared}


def figures() -> dict[Path, str]:
    """Return the figure and where it belongs."""
    return {DOCS / "study-arms.svg": drawing(_results(FOLDERS["arms"])[1])}


def _results(folder: Path) -> tuple[list[Record], ArmTable]:
    records, _, table = read_results([folder])
    assert table is not None
    return records, table


def tried(file: Path = CHOICE) -> dict[str, dict[Point, tuple[float, float]]]:
    """Return error and negative log-likelihood on the held-out images of each arm at each point that was tried.

    Raises:
        ValueError: Two runs that should be the same to the last bit differ.
    """
    found: dict[str, dict[Point, tuple[float, float]]] = {}
    for line in read_lines(file):
        arm, factor = SAME.get(line["arm"], (line["arm"], 1.0))
        point, score = (line["lr"] * factor, line["weight_decay"] / factor), (line["error"], line["nll"])
        if found.setdefault(arm, {}).setdefault(point, score) != score:
            raise ValueError(f"{line['arm']} at {point} is not {arm}")
    return found


def choice() -> str:
    """Return a table of each arm's own point, and of what it gives up at the point that suits ``labels``."""
    arms = tried()
    common = min(arms["labels"], key=arms["labels"].__getitem__)
    rows = [
        f"| arm | learning rate | weight decay | error, % | at {common[0]:g} and {common[1]:g} | points tried |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, scores in arms.items():
        rate, decay = own = min(scores, key=scores.__getitem__)
        # Arms of other lengths were not tried at the common point.
        there = " | ".join(
            f"{100 * scores[point][0]:.2f}" if point in scores else "" for point in (own, common)
        )
        rows.append(f"| {name} | {rate:g} | {decay:g} | {there} | {len(scores)} |")
    return "\n".join(rows)


def pairs(records: list[Record], compared: Pairs) -> str:
    """Return a table of the differences between two arms, paired by seed."""
    results = arm_results(records)
    lines = [
        "| arm | against | difference, points | seeds | seeds for ½ point |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, other in compared:
        for difference in differences_of(results, [(name, results[other])]):
            count = len(difference.values)
            needed = seeds_needed(statistics.stdev(difference.values)) if count > 2 else ""
            lines.append(f"| {name} | {other} | {difference_text(difference)} | {count} | {needed} |")
    return "\n".join(lines)


def drawing(table: ArmTable) -> str:
    """Return a standalone SVG of every arm's difference to the baseline, in the report's own style, light and dark."""
    chart = environment("html").from_string(CHART).render(arms=table, frame=arm_chart(table)).strip()
    style = (Path(report.__file__).parent / "style.css").read_text() + STANDALONE
    opening, _, rest = chart.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg">\n<style><![CDATA[\n{style}]]></style>{rest}\n'
