"""How often was each fault injected, and how often did it go wrong? Writes docs/reliability.md's table of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.harness import RESULTS

DOCUMENT = Path(__file__).parent.parent / "docs" / "reliability.md"


def table() -> str:
    """Return all saved runs of ``benchmarks.torture``, added up, as a table."""
    lines = [json.loads(line) for line in (RESULTS / "torture.jsonl").read_text().splitlines()]
    total: dict[tuple[int, str], list[int]] = {}
    for line in lines:
        counts = total.setdefault((line["fault"], line["what"]), [0, 0])
        counts[0] += line["trials"]
        counts[1] += line["failures"]
    rows = [f"| {fault} | {what} | {n} | {wrong} |" for (fault, what), (n, wrong) in sorted(total.items())]
    where, trials = lines[-1]["environment"], sum(line["trials"] for line in lines)
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
