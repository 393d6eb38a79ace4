"""The parts of the page about errors: Table 1, and for each family its differences, curves and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bancache.report.axes import COLOURS
from bancache.report.controls import agreement_section, controls_section
from bancache.report.curves import Points, Series, line_chart, pool_bins, reliability_chart
from bancache.report.dots import error_chart, interval_bars
from bancache.report.families import Family, Result, history, number
from bancache.report.finding import typeset
from bancache.report.listings import Column, boxed, listing, section
from bancache.report.markup import Markup, element, join
from bancache.report.results import Record
from bancache.report.sections import calibration_listing
from bancache.report.tables import Cell, Difference, Row, Table, cell_text, points

Measure = Callable[[Mapping[str, Any]], float | None]

_HEADS = {"num_views": "cached views"}


def table_section(table: Table) -> Markup | None:
    """Show the table of test errors, in the shape of the paper's Table 1."""
    if not table.rows:
        return None
    names = [element("th", _HEADS.get(label, label), class_="text", scope="col") for label in table.labels]
    columns = [element("th", column, class_="number", scope="col") for column in table.columns]
    counts = {len(cell.seeds) for row in table.rows for cell in row.cells}
    lines = [
        element(
            "tr",
            *(element("th", name, class_="text", scope="row") for name in table.names(row)),
            *(_error(row.cell(column), counts) for column in table.columns),
        )
        for row in table.rows
    ]
    box = boxed("Test error", element("tr", *names, *columns), lines)
    return section("Test error", box, note=f"Errors on the test images in %{_spread(counts)}.")


def family_section(family: Family, row: Row, table: Table, records: Sequence[Record]) -> Markup | None:
    """Show what one family gained on its baseline and on its controls, how it trained and how well it is calibrated."""
    name = ", ".join(part for part in table.names(row) if part) if len(table.rows) > 1 else ""
    suffix = f": {name}" if name else ""
    pieces = [
        _against_baseline(row, suffix),
        controls_section(row, suffix),
        agreement_section(family, records, suffix),
        _curves(family, suffix),
        _calibration(family, suffix),
    ]
    there = [piece for piece in pieces if piece]
    return element("div", *there, class_="family") if there else None


def _spread(counts: set[int]) -> str:
    if counts == {1}:
        return "; one seed, and so no spread"
    return f", mean ± sample standard deviation over {'n' if len(counts) > 1 else max(counts)} seeds"


def _error(cell: Cell | None, counts: set[int]) -> Markup:
    """Show one error, with its number of seeds where that is not the same all over the table."""
    if cell is None:
        return element("td", class_="number")
    seeds = join([" ", element("small", f"n = {len(cell.seeds)}")]) if len(counts) > 1 else ""
    return element("td", cell_text(cell), seeds, class_="number")


def _against_baseline(row: Row, suffix: str) -> Markup | None:
    if not row.differences:
        return None
    columns = [
        Column("net", [difference.column for difference in row.differences], "text"),
        Column("", interval_bars(row, row.differences), "bar"),
        Column("points", [typeset(points(difference.mean)) for difference in row.differences]),
        Column("95 % interval", [_interval(difference) for difference in row.differences]),
        Column("seeds", [str(len(difference.seeds)) for difference in row.differences]),
    ]
    note = "Difference of the test errors in percentage points, paired by seed; left of the line is better."
    if any(difference.interval for difference in row.differences):
        note += " Each interval is Student's t for its own comparison, not corrected for their number."
    caption = "Test error in %: each seed, and the mean"
    chart = _figure(caption, error_chart(caption, row))
    differences = listing("Difference to the baseline", columns)
    halves = element("div", chart or "", differences or "", class_="halves")
    return section(f"Against the baseline{suffix}", halves, note=note)


def _curves(family: Family, suffix: str) -> Markup | None:
    measures: dict[str, Measure] = {
        "Training loss": lambda epoch: number(epoch.get("loss")),
        "Training accuracy, %": lambda epoch: _percent_of(epoch.get("train_accuracy")),
        "Test accuracy, %": lambda epoch: _percent_of(epoch.get("test_accuracy")),
    }
    charts = [_figure(name, line_chart(name, _series(family, value))) for name, value in measures.items()]
    shown = [chart for chart in charts if chart]
    if not shown:
        return None
    note = "A student's loss includes the teacher's part, so its height does not compare with the baseline's."
    every = _series(family, lambda _: 0.0)
    drawn = [series for series in every if series.seeds]
    if any(len(series.seeds) > 1 for series in drawn):
        note = f"Thick: the mean over seeds. Thin: each seed. {note}"
    tested = _series(family, measures["Test accuracy, %"])
    if any(0 < len(some.seeds) < len(whole.seeds) for some, whole in zip(tested, every, strict=True)):
        note += " Seeds that were tested after their last epoch alone have no line of test accuracy."
    keys = [element("li", series.label, class_=f"s{series.colour % COLOURS}") for series in drawn]
    legend = element("ul", *keys, class_="legend")
    return section(f"Training{suffix}", legend, element("div", *shown, class_="thirds"), note=note)


def _series(family: Family, value: Measure) -> list[Series]:
    """Give each generation's values over epochs; a seed that has them at one epoch or none is left out."""
    found = []
    for place, (column, results) in enumerate(family.columns().items()):
        lines = [_points(result, value) for result in results]
        found.append(Series(column, place, tuple(line for line in lines if len(line) > 1)))
    return found


def _points(result: Result, value: Measure) -> Points:
    found: dict[float, float] = {}
    epochs = history(result.record)
    if epochs:
        # The last epoch's test is the test of the record.
        epochs = [*epochs[:-1], {"test_accuracy": 1 - result.error, **epochs[-1]}]
    for epoch in epochs:
        x, y = number(epoch.get("epoch")), value(epoch)
        if x is not None and y is not None:
            found[x] = y
    return tuple(sorted(found.items()))


def _percent_of(value: object) -> float | None:
    fraction = number(value)
    return None if fraction is None else 100 * fraction


def _calibration(family: Family, suffix: str) -> Markup | None:
    figures: list[Markup | None] = []
    for place, (column, results) in enumerate(family.columns().items()):
        bins = pool_bins([result.record["test"].get("bins") for result in results])
        figures.append(_figure(column, reliability_chart(f"Reliability of {column}", place, bins)))
    shown = [figure for figure in figures if figure]
    diagrams = element("div", *shown, class_="small") if shown else None
    note = "Bars: how often the net is right at that confidence. Shaded: the gap to the dashed line, where "
    note += "confidence is accuracy. Below: how many images have that confidence. Seeds are pooled."
    return section(f"Calibration{suffix}", diagrams, calibration_listing(family), note=note if shown else "")


def _figure(caption: str, drawing: Markup | None) -> Markup | None:
    return element("figure", element("figcaption", caption), drawing) if drawing else None


def _interval(difference: Difference) -> str | None:
    if difference.interval is None:
        return None
    low, high = (typeset(points(end)) for end in difference.interval)
    return f"{low} to {high}"
