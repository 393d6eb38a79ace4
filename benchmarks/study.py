"""Which figures does docs/study.md show? Writes the figures of the committed result lines between its marks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from bancache.report import generations_table, to_markdown
from bancache.report.families import BASELINE, Family, sort_families
from bancache.report.formats import cell_text, points
from bancache.report.power import seeds_needed
from bancache.report.results import Record, read_records
from bancache.report.tables import Row, interval_of, shares_of
from benchmarks import study_arms
from benchmarks.harness import RESULTS
from benchmarks.readme import rewrite

DOCUMENT = Path(__file__).parent.parent / "docs" / "study.md"
STUDY = "cifar100-10k-resnet-8"

_NO_CONTROLS = (
    "They are not trained to the end yet. Until their figures stand here, the gains above may be nothing but the "
    "larger gradient, and those of the ensembles nothing but the number of nets."
)

Errors = dict[int, float]


def blocks() -> dict[str, str]:
    """Return the text between each pair of marks."""
    records = _lines(STUDY)
    (family,) = sort_families(records)
    errors, _, controls = to_markdown(generations_table(records)).strip().partition("\nAgainst models")
    return {
        "errors": errors.strip(),
        "relations": _table(["relation", "seeds", "difference, points"], list(relations(family))),
        "teachers": _teachers(family),
        "controls": f"Against models{controls}" if controls else _NO_CONTROLS,
        "agreement": _agreement(family, records),
        "power": _power(generations_table(records).rows[0]),
        "loss_choice": _variants("loss_choice", "loss", reference="ban-l"),
        "view_count": _variants("view_count", "num_views", reference="162"),
        **study_arms.blocks(),
    }


def _lines(name: str) -> list[Record]:
    path = RESULTS / name / "results.jsonl"
    return read_records(path) if path.exists() else []


def relations(family: Family) -> Iterator[list[str]]:
    """Yield a row for each relation: its name, the number of seeds on which it holds, and the difference."""
    errors: dict[str, Errors] = {
        column: {result.seed: result.error for result in results}
        for column, results in {**family.columns, **family.controls}.items()
    }
    yield _relation("BAN-1 errs less than the baseline", errors["BAN-1"], errors[BASELINE])
    for size in range(2, 10):
        if ensemble := errors.get(f"Ens*{size}"):
            members = [errors[f"BAN-{generation}"] for generation in range(1, size + 1)]
            best = {seed: min(member[seed] for member in members) for seed in ensemble}
            yield _relation(f"Ens\\*{size} errs less than its best member", ensemble, best)
    others = {"BAN-1": ("labels-1", "weight-2"), **{f"Ens*{size}": (f"Ctl*{size}",) for size in range(2, 10)}}
    for model, controls in others.items():
        for control in controls:
            if model in errors and control in errors:
                shown = f"{model} errs less than {control}".replace("*", "\\*")
                yield _relation(shown, errors[model], errors[control])


def _relation(name: str, own: Errors, other: Errors) -> list[str]:
    values = [own[seed] - other[seed] for seed in own if seed in other]
    holds = f"{sum(value < 0 for value in values)} of {len(values)}"
    return [name, holds, _points(values)]


def _points(values: Sequence[float]) -> str:
    interval = interval_of(values)
    ends = f" [{points(interval[0])}, {points(interval[1])}]" if interval else ""
    return f"{points(statistics.fmean(values))}{ends}"


def _power(row: Row) -> str:
    """Return a table of how many seeds half a point needs, with the ends that 95 % of the spread's own chance gives."""
    from scipy.special import chdtri

    lines = []
    for difference in (*row.differences, *row.control_differences):
        count = len(difference.values)
        spread = statistics.stdev(difference.values)
        ends = [spread * math.sqrt((count - 1) / float(chdtri(count - 1, tail))) for tail in (0.025, 0.975)]
        name = f"{difference.ours.column} against {difference.theirs.column}".replace("*", "\\*")
        low, high = map(seeds_needed, ends)
        lines.append([name, f"{100 * spread:.2f}", f"{seeds_needed(spread)}", f"{low} to {high}"])
    return _table(
        ["difference", "spread over seeds, points", "seeds for ½ point", "95 % of the spread"], lines
    )


def _teachers(family: Family) -> str:
    """Return a sentence about the accuracy of the models of generation 0."""
    models = [result.record for result in family.columns[BASELINE]]
    fitted = statistics.fmean(model["history"][-1]["train_accuracy"] for model in models)
    right = statistics.fmean(model["test"]["accuracy"] for model in models)
    return (
        f"In their last epoch the first teachers are right on {100 * fitted:.1f} % of the training views, and then on "
        f"{100 * right:.1f} % of the test images (means over {len(models)} seeds)."
    )


def _agreement(family: Family, records: Sequence[Record]) -> str:
    """Return a table of the agreement between two models of a seed: mean over seeds, in per cent."""
    shares = shares_of(family, records)
    rows = [
        [later, before, f"{100 * statistics.fmean(values):.1f}", str(len(values))]
        for (later, before), values in shares.items()
    ]
    return _table(["model", "and", "same class, %", "seeds"], rows) if rows else "Not recorded yet."


def _variants(name: str, label: str, *, reference: str) -> str:
    """Return a table of students that differ in one setting, compared with label-only training and a reference."""
    rows = {str(getattr(row.key, label)): row for row in generations_table(_lines(name)).rows}
    if not rows:
        return f"Not run to the end yet: `python -m benchmarks.{name} --save`."
    fixed = _errors(rows[reference])
    lines = []
    for value, row in rows.items():
        (cell,) = (cell for cell in row.cells if cell.column == "BAN-1")
        (difference,) = (d for d in row.differences if d.ours.column == "BAN-1")
        own = _errors(row)
        beside = (
            "" if value == reference else _points([own[seed] - fixed[seed] for seed in own if seed in fixed])
        )
        lines.append([value, f"{cell_text(cell)} ({len(cell.seeds)})", _points(difference.values), beside])
    head = {"num_views": "views in the cache"}.get(label, label)
    table = _table([head, "error, %", "against labels alone, points", f"against {reference}, points"], lines)
    baseline = next(cell for cell in next(iter(rows.values())).cells if cell.column == BASELINE)
    return (
        f"{table}\n\nTheir teachers, taught by labels alone: {cell_text(baseline)} ({len(baseline.seeds)})."
    )


def _errors(row: Row) -> Errors:
    (cell,) = (cell for cell in row.cells if cell.column == "BAN-1")
    return dict(zip(cell.seeds, cell.errors, strict=True))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))


if __name__ == "__main__":
    rewrite(DOCUMENT, blocks())
    for path, drawn in study_arms.figures().items():
        path.write_text(drawn)
