"""Which figures does the README show? Those of the committed result lines: this writes them between its marks."""

from __future__ import annotations

import json
import re
from pathlib import Path

from bancache.report import generations_table, to_markdown
from bancache.results import read_records
from benchmarks.harness import RESULTS

README = Path(__file__).parent.parent / "README.md"
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


def blocks() -> dict[str, str]:
    """Return what belongs between each pair of marks."""
    found = {"views": ratio_table()}
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
