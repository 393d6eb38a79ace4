"""Which figures does the README show? Those of the committed result lines: this writes them between its marks."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bancache.report import generations_table, to_markdown
from bancache.report.results import read_records
from benchmarks.harness import RESULTS

README = Path(__file__).parent.parent / "README.md"
# What the README shows of all that benchmarks.encodings measures: ours, and what others keep.
SHOWN = {
    "root4": "root4, the default",
    "root8": "root8, for temperatures to 4",
    "root2-1024": "root2-1024",
    "plain float16": "logits, float16",
    "plain bfloat16": "logits, bfloat16",
    "int8": "logits, int8 a row",
    "tinyvit top-10": "top 10 probabilities",
}
STUDIES = ("cifar100-wrn-16-1", "cifar100-10k-resnet-8")


def ratio_table(name: str = "views") -> str:
    """Return the last measured ratios of a benchmark as a table."""
    last = {}
    for line in (RESULTS / f"{name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "ratio" in row:
            last[row["ratio"]] = row["value"]
    rows = [
        f"| {name} | {value['median']:.2g} | {value['low']:.2g} to {value['high']:.2g} | {value['runs']} |"
        for name, value in last.items()
    ]
    return "\n".join(
        ["| ratio of times | median | quartiles | runs |", "| --- | ---: | ---: | ---: |", *rows]
    )


def encodings_table() -> str:
    """Return bytes a class by profile, and losses, of some encodings of a converged teacher's 100 classes."""
    last = {}
    for line in (RESULTS / "encodings.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("classes") == 100 and "encoding" in row:
            last[row["encoding"]] = row
    lines = [
        "| encoding | bytes a class | compact | KL from the teacher, nats | gradient error |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, title in SHOWN.items():
        size, lost = last[name]["bytes_per_entry"], last[name]["fidelity"]["1"]
        folded = "–" if size["compact"] is None else f"{size['compact'] / 100:.2f}"
        lines.append(
            f"| {title} | {size['default'] / 100:.2f} | {folded} | {lost['kl_mean']:.1e} | {lost['gradient_error']:.1e} |"
        )
    noise = last["root4"]["noise_floor"]["1"]["kl_mean"]
    return "\n".join([*lines, f"| the teacher itself, in bfloat16 | | | {noise:.1e} | |"])


def blocks() -> dict[str, str]:
    """Return what belongs between each pair of marks."""
    found = {"views": ratio_table(), "encodings": encodings_table()}
    for study in STUDIES:
        if (lines := RESULTS / study / "results.jsonl").exists():
            found[study] = to_markdown(generations_table(read_records(lines))).strip()
    return found


def rewrite(document: Path, found: dict[str, str]) -> None:
    """Put each block between its marks in a document."""
    text = document.read_text()
    for name, block in found.items():
        text = re.sub(
            # Never past the next mark, whatever is between them.
            rf"(<!-- {name} -->\n)(?:(?!<!--).)*(\n<!-- end -->)",
            lambda found, block=block: found[1] + block + found[2],  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    document.write_text(text)


if __name__ == "__main__":
    rewrite(README, blocks())
