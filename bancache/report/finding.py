"""What the table says in words, no more than it says: better, worse, no clear difference, or one seed only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bancache.report.families import BASELINE
from bancache.report.tables import Difference, Row, Table, points

_INTERVAL = "95\N{NO-BREAK SPACE}% interval "

_NO_CONTROL = (
    "No net without a teacher was trained beside them (--control), so whether the gain comes from the teacher, from a "
    "loss that counts twice or from the number of nets stays open."
)

Verdict = Literal["less", "more", "unclear", "single"]


@dataclass(frozen=True)
class Finding:
    """The headline of a report and the sentences under it."""

    title: str
    sentences: tuple[str, ...]


def find(table: Table) -> Finding:
    """Say what became of the first generation of students, and then of all columns in turn.

    The headline is always about the first generation, not about the one that came out best.
    """
    compared = [row for row in table.rows if row.differences]
    if not compared:
        return _nothing_to_compare(table)
    if len(compared) == 1:
        sentences = _sentences(compared[0])
        return Finding(_title(compared[0]), sentences)
    names = [" ".join(name for name in table.names(row) if name) for row in compared]
    sentences = tuple(
        f"{name}. {sentence}"
        for name, row in zip(names, compared, strict=True)
        for sentence in _sentences(row)[:1]
    )
    return Finding(_title_of_many(compared), sentences)


def verdict(difference: Difference) -> Verdict:
    """Judge a difference by its confidence interval: does it leave zero out, and on which side?"""
    if difference.interval is None:
        return "single"
    low, high = difference.interval
    return "less" if high < 0 else "more" if low > 0 else "unclear"


def percent(fraction: float, digits: int = 2) -> str:
    """Write a fraction in per cent, with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def typeset(text: str) -> str:
    """Put true minus signs in place of hyphens before digits."""
    return text.replace("-", "\N{MINUS SIGN}")


def _title(row: Row) -> str:
    first = row.differences[0]
    student, baseline = row.cell(first.column), row.cell(BASELINE)
    assert student is not None
    assert baseline is not None
    errors = f"{percent(student.mean)} against {percent(baseline.mean)}"
    return {
        "less": f"{first.column} errs less than its baseline: {errors}",
        "more": f"{first.column} errs more than its baseline: {errors}",
        "unclear": f"No clear difference between {first.column} and its baseline: {errors}",
        "single": f"One seed only: {first.column} errs on {percent(student.mean)} of the test images, "
        f"its baseline on {percent(baseline.mean)}",
    }[verdict(first)]


def _title_of_many(rows: list[Row]) -> str:
    verdicts = [verdict(row.differences[0]) for row in rows]
    words: dict[Verdict, str] = {
        "less": "better",
        "more": "worse",
        "unclear": "not clear",
        "single": "with one seed only",
    }
    counts = [f"{verdicts.count(kind)} {word}" for kind, word in words.items() if kind in verdicts]
    return f"{len(rows)} comparisons of the first generation with its baseline: {', '.join(counts)}"


def _sentences(row: Row) -> tuple[str, ...]:
    first, *others = row.differences
    kind = verdict(first)
    seeds = len(first.seeds)
    if kind == "single":
        sentence = (
            f"{first.column}'s error differs from the baseline's by {typeset(points(first.mean))} percentage "
            f"points with the one seed that has both; one seed cannot tell an effect from chance."
        )
    else:
        meaning = {
            "less": "It errs less here",
            "more": "It errs more here",
            "unclear": "The interval contains zero, so these seeds do not show whether it helps",
        }[kind]
        sentence = (
            f"Paired over {seeds} seeds, {first.column}'s error differs from the baseline's by "
            f"{_with_interval(first, name=_INTERVAL)}. {meaning}."
        )
    sentences = [sentence]
    if others:
        rest = "; ".join(f"{other.column}\N{NO-BREAK SPACE}{_with_interval(other)}" for other in others)
        sentences.append(f"The others, against the same baseline: {rest}.")
    controls = [d for d in row.control_differences if not d.against.startswith("labels-")]
    if controls:
        rest = "; ".join(
            f"{d.column} against {d.against}\N{NO-BREAK SPACE}{_with_interval(d)}" for d in controls
        )
        sentences.append(f"Against nets without a teacher: {rest}.")
    elif kind == "less":
        sentences.append(_NO_CONTROL)
    return tuple(sentences)


def _with_interval(difference: Difference, *, name: str = "") -> str:
    mean = f"{typeset(points(difference.mean))} points"
    if difference.interval is None:
        return mean
    low, high = (typeset(points(end)) for end in difference.interval)
    return f"{mean} ({name}{low} to {high})"


def _nothing_to_compare(table: Table) -> Finding:
    cells = [(row, cell) for row in table.rows for cell in row.cells]
    if not cells:
        return Finding("No net has been tested yet", ())
    row, cell = cells[0]
    title = f"{row.model} {cell.column} errs on {percent(cell.mean)} of the test images"
    return Finding(title, ("No seed has both a baseline and a student, so there is nothing to compare yet.",))
