"""Runs the commands that docs/tutorial.md shows and writes what they print: ``python -m tools.transcripts``.

It takes a minute. A test runs the commands with fewer epochs and compares everything but the numbers.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"
SHOWN = re.compile(r"```console\n\$ bancache (.*?)\n(.*?)```", re.DOTALL)
# As wide as a page shows without wrapping its tables.
_COLUMNS = "240"


def transcripts(text: str, folder: Path) -> str:
    """Return the text with each transcript replaced by what its command prints in ``folder``."""

    def run(found: re.Match[str]) -> str:
        done = subprocess.run(  # noqa: S603 (the commands of the tutorial)
            [sys.executable, "-m", "bancache_cli", *found[1].split()],
            cwd=folder,
            env={**os.environ, "COLUMNS": _COLUMNS},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        lines = "\n".join(line.rstrip() for line in done.stdout.splitlines())
        return f"```console\n$ bancache {found[1]}\n{lines}\n```"

    return SHOWN.sub(run, text)


def main() -> None:
    """Rewrite the tutorial."""
    with tempfile.TemporaryDirectory() as folder:
        TUTORIAL.write_text(transcripts(TUTORIAL.read_text(), Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
