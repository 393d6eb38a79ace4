"""Which figures does docs/encodings.md show? Those of the committed result lines: this writes tables and drawings."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from bancache.report.tables import interval_of
from benchmarks.harness import RESULTS
from benchmarks.rate_plot import Point, drawing
from tools.marks import filled

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "encodings.md"
STUDENTS_AGAINST = "float32"

Line = dict[str, Any]


def lines(name: str, key: tuple[str, ...]) -> list[Line]:
    """Return the last line for each value of the keys, in the order in which they first came."""
    file = RESULTS / f"{name}.jsonl"
    rows = [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []
    return list({tuple(row[k] for k in key): row for row in rows if key[0] in row}.values())


def weighed(classes: int) -> list[Line]:
    """Return the lines of all codes at a number of classes, smallest first."""
    rows = [row for row in lines("encodings", ("encoding", "classes")) if row["classes"] == classes]
    return sorted(rows, key=lambda row: size(row))


def size(row: Line, profile: str = "default") -> float:
    """Return the bytes of a (sample, view) pair."""
    return float(row["bytes_per_entry"][profile])


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def weights(classes: int) -> str:
    """Return size and loss of every code."""
    head = [
        "encoding",
        "bytes",
        "a class",
        "compact",
        "KL, T = 1",
        "99.9 %",
        "worst",
        "T = 2",
        "T = 4",
        "same class",
        "gradient",
    ]
    rows = []
    for row in weighed(classes):
        one, two, four = (row["fidelity"][t] for t in ("1", "2", "4"))
        kls = [one["kl_mean"], one["kl_p999"], one["kl_max"], two["kl_mean"], four["kl_mean"]]
        shown = [f"{kl:.1e}" if kl > 1e-11 else "0" for kl in kls]
        agreement, gradient = f"{one['argmax_agreement']:.3%}", f"{one['gradient_error']:.1e}"
        name = row["encoding"].replace(" ", "\N{NO-BREAK SPACE}")
        folded = row["bytes_per_entry"]["compact"]
        sizes = [
            f"{size(row):.1f}",
            f"{size(row) / classes:.3f}",
            f"{folded / classes:.3f}" if folded else "–",
        ]
        rows.append([name, *sizes, *shown, agreement, gradient])
    return table(head, rows)


def source(classes: int) -> str:
    """Return which teacher was measured, in a sentence."""
    row = weighed(classes)[0]
    noise = row["noise_floor"]
    floor = ""
    if noise:
        means = ", ".join(f"{noise[t]['kl_mean']:.1e} at T = {t}" for t in ("1", "2", "4"))
        floor = f" In bfloat16 the teacher differs from itself in float32 by {means} nats."
    return (
        f"{row['entries']:,} (sample, view) pairs. The teacher's largest probability is "
        f"{row['teacher_mean_max_probability']:.3f} on average; its accuracy on these views is "
        f"{row['teacher_accuracy']:.1%}.{floor}"
    )


def targets() -> str:
    """Return the target sizes and the measured ones."""
    rows = []
    for classes in (100, 1000):
        found = {row["encoding"]: row for row in weighed(classes)}["root4"]
        kl = found["fidelity"]["1"]["kl_mean"]
        for profile, most in (("default", 0.70), ("compact", 0.55)):
            each = size(found, profile) / classes
            met = "yes" if kl <= 1e-5 and each <= most else "no"
            rows.append(
                [f"root4, {profile}, {classes} classes", f"{kl:.1e}", f"{each:.3f}", f"{most:.2f}", met]
            )
    return table(["at most 1e-5 nats at T = 1", "KL", "bytes a class", "target", "met"], rows)


def theory(classes: int) -> str:
    """Return measured divergence and formula for each root and temperature."""
    found = [r for r in lines("encodings", ("theory", "classes", "temperature")) if r["classes"] == classes]
    roots: dict[str, list[Line]] = {}
    for row in found:
        roots.setdefault(row["theory"], []).append(row)
    rows = []
    for name, of in roots.items():
        cells = [f"{r['kl_mean']:.1e} ({r['formula_mean']:.1e})" for r in of]
        worst = max(r["worst_share_of_bound"] for r in of)
        rows.append([name, *cells, f"{worst:.0%}"])
    return table(["code", "T = 1", "T = 2", "T = 4", "largest share of the bound"], rows)


def versus_topk(classes: int) -> str:
    """Return for each top-k the smallest root code that loses no more than it, at temperature 1."""
    ours = [row for row in weighed(classes) if row["encoding"].startswith("root")]
    rows = []
    for row in weighed(classes):
        if not row["encoding"].startswith("tinyvit"):
            continue
        kl = row["fidelity"]["1"]["kl_mean"]
        as_good = [other for other in ours if other["fidelity"]["1"]["kl_mean"] <= kl]
        if as_good:
            best = as_good[0]
            lost = f"{best['fidelity']['1']['kl_mean']:.1e}"
            ratio = f"{size(row) / size(best):.1f}"
            rows.append(
                [
                    row["encoding"],
                    f"{size(row):.1f}",
                    f"{kl:.1e}",
                    best["encoding"],
                    f"{size(best):.1f}",
                    lost,
                    ratio,
                ]
            )
        else:
            rows.append([row["encoding"], f"{size(row):.1f}", f"{kl:.1e}", "none", "", "", ""])
    return table(["top-k", "bytes", "KL", "root code", "bytes", "KL", "times smaller"], rows)


def speed(unit: str) -> str:
    """Return times as multiples of a unit's."""
    found = [row for row in lines("encodings", ("ratio", "classes")) if row["ratio"].endswith(f" / {unit}")]
    rows = []
    for what in dict.fromkeys(row["ratio"] for row in found):
        cells = []
        for classes in (100, 1000):
            value = next(r["value"] for r in found if r["ratio"] == what and r["classes"] == classes)
            cells += [f"{value['median']:.2g}", f"{value['low']:.2g} to {value['high']:.2g}"]
        rows.append([what.removesuffix(f" / {unit}"), *cells])
    return table([f"time / {unit}", "100 classes", "quartiles", "1000 classes", "quartiles"], rows)


def students() -> str:
    """Return the students' test accuracies, and their paired differences from those of float32."""
    found = lines("encoding_students", ("encoding", "seed"))
    if not found:
        return "Not measured yet."
    scores: dict[str, dict[int, float]] = {}
    for row in found:
        scores.setdefault(row["encoding"], {})[row["seed"]] = 100 * row["test_accuracy"]
    of = {row["encoding"]: row for row in found}
    rows = []
    for name, by_seed in scores.items():
        values = list(by_seed.values())
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        paired = [by_seed[s] - scores[STUDENTS_AGAINST][s] for s in by_seed if s in scores[STUDENTS_AGAINST]]
        rows.append(
            [
                name,
                f"{of[name]['bytes_per_entry']:.0f}",
                f"{of[name]['kl_mean']:.1e}",
                f"{statistics.fmean(values):.2f}{spread} ({len(values)})",
                "" if name == STUDENTS_AGAINST else _difference(paired),
            ]
        )
    return table(
        ["targets stored as", "bytes a pair", "KL, T = 1", "test accuracy, %", "against float32, points"],
        rows,
    )


def _difference(paired: list[float]) -> str:
    mean = statistics.fmean(paired)
    interval = interval_of(paired)
    return f"{mean:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def plot(classes: int, temperature: str) -> str:
    """Return the drawing of rate against distortion."""
    rows = weighed(classes)
    points = [
        Point(row["encoding"], _family(row["encoding"]), size(row), row["fidelity"][temperature]["kl_mean"])
        for row in rows
    ]
    noise = rows[0]["noise_floor"]
    floor = noise[temperature]["kl_mean"] if noise else None
    return drawing(f"KL in nats at T = {temperature}, {classes} classes", points, noise=floor)


def _family(name: str) -> str:
    for start, family in (("root", "root"), ("topk", "topk"), ("tinyvit", "rival"), ("plain", "rival")):
        if name.startswith(start):
            return family
    return "dense"


def blocks() -> dict[str, str]:
    """Return what belongs between each pair of marks."""
    return {
        "source-100": source(100),
        "weights-100": weights(100),
        "source-1000": source(1000),
        "weights-1000": weights(1000),
        "targets": targets(),
        "theory-100": theory(100),
        "theory-1000": theory(1000),
        "topk-100": versus_topk(100),
        "topk-1000": versus_topk(1000),
        "speed": speed("memcpy"),
        "share": speed("forward pass of ResNet-8"),
        "students": students(),
    }


def drawings() -> dict[str, str]:
    """Return the content of each drawing by its file's name."""
    return {f"encodings-{c}-t{t}.svg": plot(c, t) for c, t in ((100, "1"), (100, "4"), (1000, "1"))}


def main() -> None:
    """Rewrite the page's tables and its drawings."""
    PAGE.write_text(filled(PAGE.read_text(), blocks()))
    for name, content in drawings().items():
        (DOCS / name).write_text(content)


if __name__ == "__main__":
    main()
