"""The parts of the page that list what was done: training speed, lineage, recipe, environment, commands."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence

from bancache.report.families import Family, Result, mean_of, number
from bancache.report.finding import percent
from bancache.report.listings import Column, count, decimals, definitions, duration, listing, section, short
from bancache.report.markup import Markup, element
from bancache.report.results import Record


def training_section(families: Sequence[Family]) -> Markup | None:
    """List how long each generation took to train, and how many images a second it saw."""
    lines: dict[tuple[str, ...], list[Record]] = {}
    for family in families:
        for column, results in family.columns().items():
            runs = [result.record for result in results if result.record["kind"] == "run"]
            if runs:
                # A baseline that serves several families is listed once.
                lines[family.data, f"{family.model} {column}", *_texts(runs, "loss", "num_views")] = runs
    if not any(mean_of(runs, "seconds") or mean_of(runs, "images_per_second") for runs in lines.values()):
        return None
    data, nets, losses, views = zip(*lines, strict=True)
    columns = [
        Column("net", nets, "text"),
        *([Column("data", data, "text")] if len(set(data)) > 1 else []),
        Column("loss", losses, "text"),
        Column("cached views", [text or None for text in views]),
        Column("parameters", [count(mean_of(runs, "parameters")) for runs in lines.values()]),
        Column("epochs", [count(mean_of(runs, "epochs")) for runs in lines.values()]),
        Column("nets", [count(len(runs)) for runs in lines.values()]),
        Column("images/s", [count(mean_of(runs, "images_per_second")) for runs in lines.values()]),
        Column("time a net", [duration(mean_of(runs, "seconds")) for runs in lines.values()]),
    ]
    note = "Means over the nets of a line, each as its own run measured it."
    return section("Training speed", listing("Training speed", columns), note=note)


def calibration_listing(family: Family) -> Markup | None:
    """List how good each column's probabilities are: negative log-likelihood and calibration error."""
    columns = family.columns()
    nll = [_mean_test(results, "nll") for results in columns.values()]
    ece = [_mean_test(results, "ece") for results in columns.values()]
    if not any(value is not None for value in (*nll, *ece)):
        return None
    return listing(
        "Calibration",
        [
            Column("net", list(columns), "text"),
            Column("negative log-likelihood", [decimals(value, ".3f") for value in nll]),
            Column("calibration error (ECE)", [None if v is None else percent(v) for v in ece]),
            Column("seeds", [str(len(results)) for results in columns.values()]),
        ],
    )


def lineage_section(families: Sequence[Family]) -> Markup | None:
    """Show each seed's last generation with the nets that it descends from, generation 0 first."""
    chains = []
    for family in families:
        last: dict[int, Result] = {}
        for result in sorted(family.results, key=lambda result: (result.seed, result.rank)):
            if result.record["kind"] == "run" and result.record.get("lineage"):
                last[result.seed] = result
        chains += [_chain(family, result) for result in last.values()]
    return section(
        "Lineage",
        *chains,
        note="The accuracy from teacher to student, generation 0 first; open a line to see the nets.",
    )


def facts(records: Sequence[Record], name: str) -> Markup | None:
    """List every key of an object in the records, with each value that it has anywhere."""
    values: dict[str, list[str]] = {}
    for record in records:
        for key, value in _flat(record.get(name)):
            texts = values.setdefault(key, [])
            if value not in texts:
                texts.append(value)
    return definitions({key: ", ".join(texts) for key, texts in values.items()})


def commands(records: Sequence[Record]) -> Markup | None:
    """Give the commands that wrote the records, each once, in the order in which they came."""
    given = (record.get("command") for record in records)
    lines = [shlex.join(map(str, line)) if isinstance(line, list) else str(line) for line in given if line]
    if not lines:
        return None
    text = "\n".join(dict.fromkeys(lines))
    return element("pre", element("code", text))


def _chain(family: Family, result: Result) -> Markup:
    """Fold a chain of nets under one line that shows how the accuracy went from one to the next."""
    itself = {
        "generation": result.record["generation"],
        "model": family.model,
        "accuracy": 1 - result.error,
        "out": result.record.get("out"),
    }
    lineage = result.record["lineage"]
    links = [link for link in (lineage if isinstance(lineage, list) else []) if isinstance(link, dict)]
    accuracies = [number(link.get("accuracy")) for link in (*links, itself)]
    steps = " → ".join("?" if accuracy is None else percent(accuracy) for accuracy in accuracies)
    name = ", ".join(part for part in (family.model, family.loss, f"seed {result.seed}") if part)
    chain = element("ol", *(_link(link) for link in (*links, itself)), class_="chain")
    return element("details", element("summary", element("b", name), " ", element("span", steps)), chain)


def _link(link: Mapping[str, object]) -> Markup:
    generation, accuracy = link.get("generation"), number(link.get("accuracy"))
    shown = {**link, "generation": None, "accuracy": None if accuracy is None else percent(accuracy)}
    details = [element("span", f"{key} {value}") for key, value in _flat(shown)]
    return element("li", element("b", f"generation {generation}"), *details)


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}".replace("_", " ") + " ")
    elif value is not None:
        yield prefix.strip(), short(value) or ""


def _texts(records: Sequence[Record], *names: str) -> list[str]:
    """Give each name's distinct values over the records as one text."""
    return [", ".join(dict.fromkeys(str(r[n]) for r in records if r.get(n) is not None)) for n in names]


def _mean_test(results: Sequence[Result], name: str) -> float | None:
    values = [value for result in results if (value := result.test(name)) is not None]
    return statistics.fmean(values) if values else None
