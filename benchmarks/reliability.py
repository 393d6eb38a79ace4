"""How often was each fault injected, and how often did it go wrong? Writes docs/reliability.md's table of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs" / "reliability.md"


def table() -> str:
    """Return the longest saved run of each row of ``benchmarks.torture``, unless a later one had failures.

    A row draws the same faults every time, so runs are not added up.
    """
    longest: dict[tuple[int, str], dict[str, Any]] = {}
    for text in (RESULTS / "torture.jsonl").read_text().splitlines():
        line = json.loads(text)
        before = longest.get((line["fault"], line["what"]))
        if before is None or line["failures"] or before["failures"] or line["trials"] > before["trials"]:
            longest[line["fault"], line["what"]] = line
    lines = [longest[key] for key in sorted(longest)]
    rows = [f"| {line['fault']} | {line['what']} | {line['trials']} | {line['failures']} |" for line in lines]
    where, trials = lines[0]["environment"], sum(line["trials"] for line in lines)
    minutes = sum(line["seconds"] for line in lines) / 60
    versions = ", ".join(f"{name} {where[name]}" for name in ("python", "torch", "zarr"))
    head = ["| # | what was injected | trials | failures |", "| ---: | --- | ---: | ---: |"]
    return "\n".join(
        [
            *head,
            *rows,
            "",
            f"{trials:,} trials in {minutes:.0f} minutes on {where['cores']} cores ({where['cpu']}); {versions}.",
        ]
    )


def main() -> None:
    """Rewrite the document."""
    text = DOCUMENT.read_text()
    text = re.sub(
        r"(<!-- torture -->\n).*(<!-- end -->)",
        lambda found: f"{found[1]}{table()}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
