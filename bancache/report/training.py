"""How the models were trained: curves over epochs, speed, lineage, recipe, commands."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bancache.report.charts import Line, Points, line_chart
from bancache.report.families import BASELINE, Family, Result, dicts_in, mean_of, number
from bancache.report.formats import distinct, percent, short
from bancache.report.results import Record

_MEANS = ("parameters", "epochs", "images_per_second", "seconds")


def curves(family: Family) -> dict[str, Any]:
    """Return the captions and charts of the measures that have two epochs, and what is to be said of their lines."""
    every, loss = column_lines(family, "epoch"), column_lines(family, "loss")
    tests = column_lines(family, "test_accuracy", 100)
    # A student's loss has a term more, so the two losses do not share an axis.
    charts = {
        "Training loss, labels alone": [line for line in loss if line.label == BASELINE],
        "Training loss, with the teacher's part": [line for line in loss if line.label != BASELINE],
        "Training accuracy, %": column_lines(family, "train_accuracy", 100),
        "Test accuracy, %": tests,
    }
    tested = zip(tests, every, strict=True)
    return {
        "charts": [(caption, chart) for caption, lines in charts.items() if (chart := line_chart(lines))],
        "several_seeds": any(len(line.seeds) > 1 for line in every),
        "some_untested": any(0 < len(some.seeds) < len(all_seeds.seeds) for some, all_seeds in tested),
    }


def speeds(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return means over the models of each column; a baseline that serves several families is listed once."""
    lines: dict[str, dict[str, Any]] = {}
    for family in families:
        for column, results in family.columns.items():
            runs = [result.record for result in results if result.record["kind"] == "run"]
            name = {
                "model": f"{family.key.model} {column}",
                "data": family.key.data,
                "loss": distinct(runs, "loss"),
                "num_views": distinct(runs, "num_views") or None,
            }
            if runs:
                means = {mean_name: mean_of(runs, mean_name) for mean_name in _MEANS}
                lines[repr(name)] = {**name, **means, "models": len(runs)}
    measured = any(line["seconds"] or line["images_per_second"] for line in lines.values())
    return list(lines.values()) if measured else []


def lineages(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return the last generation of each seed with the models that it descends from, generation 0 first."""
    chains = []
    for family in families:
        last: dict[int, Result] = {}
        for result in (result for results in family.columns.values() for result in results):
            if result.record["kind"] == "run" and result.record.get("lineage"):
                last[result.seed] = result
        for seed, result in sorted(last.items()):
            name = ", ".join(part for part in (family.key.model, family.key.loss, f"seed {seed}") if part)
            chains.append({"name": name, "links": list(_links(family, result))})
    return chains


def facts(records: Sequence[Record], name: str) -> dict[str, str]:
    """Return every key of an object in the records with its distinct values."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for key, value in _flat(record.get(name)):
            values.setdefault(key, {})[value] = None
    return {key: ", ".join(texts) for key, texts in values.items()}


def commands(records: Sequence[Record]) -> str:
    """Return the commands that wrote the records, each once, one a line."""
    given = [record["command"] for record in records if record.get("command")]
    lines = [shlex.join(map(str, line)) if isinstance(line, list) else str(line) for line in given]
    return "\n".join(dict.fromkeys(lines))


def column_lines(family: Family, name: str, factor: float = 1) -> list[Line]:
    """Return a line for each column; a seed with fewer than two epochs is left out."""
    lines = []
    for color, (column, results) in enumerate(family.columns.items()):
        seeds = [points for result in results if len(points := _points(result, name, factor)) > 1]
        maps = [dict(points) for points in seeds]
        common = sorted(set(maps[0]).intersection(*maps[1:])) if maps else []
        means = [(epoch, statistics.fmean(points[epoch] for points in maps)) for epoch in common]
        lines.append(Line(column, color, seeds, means))
    return lines


def _points(result: Result, name: str, factor: float) -> Points:
    epochs = dicts_in(result.record, "history")
    if epochs:
        # The last epoch's test is the test of the record.
        epochs[-1] = {"test_accuracy": 1 - result.error, **epochs[-1]}
    pairs = [(number(epoch.get("epoch")), number(epoch.get(name))) for epoch in epochs]
    return sorted({x: factor * y for x, y in pairs if x is not None and y is not None}.items())


def _links(family: Family, result: Result) -> Iterator[dict[str, Any]]:
    ancestors = dicts_in(result.record, "lineage")
    itself = {
        "generation": len(ancestors),
        "model": family.key.model,
        "accuracy": 1 - result.error,
        "out": result.record.get("out"),
    }
    for link in (*ancestors, itself):
        accuracy = percent(number(link.get("accuracy")))
        shown = _flat({**link, "generation": None, "accuracy": accuracy})
        details = [f"{key} {value}" for key, value in shown]
        yield {"generation": link.get("generation"), "accuracy": accuracy or "?", "details": details}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}".replace("_", " ") + " ")
    elif value is not None:
        yield prefix.strip(), short(value) or ""
