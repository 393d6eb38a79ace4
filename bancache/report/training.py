"""How the models were trained: curves over epochs, speed, lineage, recipe, commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bancache.report.charts import Line, Points, line_chart
from bancache.report.families import Family, Result, mean, mean_of, number
from bancache.report.formats import distinct, percent, short
from bancache.report.results import Record

Epoch = Mapping[str, Any]
_MEANS = ("parameters", "epochs", "images_per_second", "seconds")


def curves(family: Family) -> dict[str, Any]:
    """Return the chart of each measure (None without two epochs), and the lines for the legend."""
    measures: dict[str, Callable[[Epoch], float | None]] = {
        "loss": lambda epoch: number(epoch.get("loss")),
        "train_accuracy": lambda epoch: _percent(epoch.get("train_accuracy")),
        "test_accuracy": lambda epoch: _percent(epoch.get("test_accuracy")),
    }
    charts = {name: _lines(family, value) for name, value in measures.items()}
    legend = _lines(family, lambda _: 0.0)
    tested = zip(charts["test_accuracy"], legend, strict=True)
    return {
        **{name: line_chart(lines) for name, lines in charts.items()},
        "legend": [line for line in legend if line.seeds],
        "several_seeds": any(len(line.seeds) > 1 for line in legend),
        "some_untested": any(0 < len(some.seeds) < len(every.seeds) for some, every in tested),
    }


def speeds(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return means over the models of each column; a baseline that serves several families is listed once."""
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for family in families:
        for column, results in family.columns().items():
            runs = [result.record for result in results if result.record["kind"] == "run"]
            name, loss, views = (
                f"{family.key.model} {column}",
                distinct(runs, "loss"),
                distinct(runs, "num_views"),
            )
            line = {"model": name, "data": family.key.data, "loss": loss, "num_views": views or None}
            if runs:
                means = {mean_name: mean_of(runs, mean_name) for mean_name in _MEANS}
                lines[family.key.data, name, loss, views] = {**line, **means, "models": len(runs)}
    measured = any(line["seconds"] or line["images_per_second"] for line in lines.values())
    return list(lines.values()) if measured else []


def lineages(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Return the last generation of each seed with the models that it descends from, generation 0 first."""
    chains = []
    for family in families:
        last: dict[int, Result] = {}
        for result in sorted(family.results, key=lambda result: (result.seed, result.rank)):
            if result.record["kind"] == "run" and result.record.get("lineage"):
                last[result.seed] = result
        for seed, result in last.items():
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


def _lines(family: Family, value: Callable[[Epoch], float | None]) -> list[Line]:
    """Return a line for each column; a seed with fewer than two epochs is left out."""
    lines = []
    for color, (column, results) in enumerate(family.columns().items()):
        seeds = [points for result in results if len(points := _points(result, value)) > 1]
        maps = [dict(points) for points in seeds]
        common = sorted(set(maps[0]).intersection(*maps[1:])) if maps else []
        means = [(epoch, mean([points[epoch] for points in maps]) or 0.0) for epoch in common]
        lines.append(Line(column, color, seeds, means))
    return lines


def _points(result: Result, value: Callable[[Epoch], float | None]) -> Points:
    history = result.record.get("history")
    epochs = [epoch for epoch in history if isinstance(epoch, dict)] if isinstance(history, list) else []
    if epochs:
        # The last epoch's test is the test of the record.
        epochs[-1] = {"test_accuracy": 1 - result.error, **epochs[-1]}
    pairs = [(number(epoch.get("epoch")), value(epoch)) for epoch in epochs]
    return sorted({x: y for x, y in pairs if x is not None and y is not None}.items())


def _percent(value: object) -> float | None:
    fraction = number(value)
    return None if fraction is None else 100 * fraction


def _links(family: Family, result: Result) -> Iterator[dict[str, Any]]:
    lineage = result.record["lineage"]
    itself = {
        "generation": result.record["generation"],
        "model": family.key.model,
        "accuracy": 1 - result.error,
        "out": result.record.get("out"),
    }
    for link in (*(lineage if isinstance(lineage, list) else []), itself):
        if isinstance(link, dict):
            accuracy = percent(number(link.get("accuracy")))
            details = [
                f"{key} {value}" for key, value in _flat({**link, "generation": None, "accuracy": accuracy})
            ]
            yield {"generation": link.get("generation"), "accuracy": accuracy or "?", "details": details}


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}".replace("_", " ") + " ")
    elif value is not None:
        yield prefix.strip(), short(value) or ""
