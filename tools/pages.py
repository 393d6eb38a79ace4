"""Writes the pages that say what the code says: ``python -m tools.pages``; a test fails where one is stale."""

from __future__ import annotations

from pathlib import Path

from tools import api, commands, rooms
from tools.marks import filled

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def pages() -> dict[Path, str]:
    """Return the text of each file that is generated, whole or between marks."""
    contributing, architecture = ROOT / "CONTRIBUTING.md", DOCS / "architecture.md"
    return {
        DOCS / "commands.md": commands.page(),
        DOCS / "api.md": api.page(),
        DOCS / "rooms.svg": rooms.drawing(),
        contributing: filled(contributing.read_text(), {"layers": rooms.order()}),
        architecture: filled(architecture.read_text(), {"way": rooms.way(), "rooms": rooms.table()}),
    }


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
