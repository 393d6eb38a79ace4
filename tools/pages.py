"""Writes the pages that say what the code says: ``python -m tools.pages``; a test fails where one is stale."""

from __future__ import annotations

from pathlib import Path

from tools import api, commands

DOCS = Path(__file__).parent.parent / "docs"


def pages() -> dict[Path, str]:
    """Return each generated page's file and its text."""
    return {DOCS / "commands.md": commands.page(), DOCS / "api.md": api.page()}


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
