"""Writes the pages that say what the code says: ``python -m tools.pages``; a test fails where one is stale."""

from __future__ import annotations

import re
from pathlib import Path

from tools import api, commands, rooms

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


def filled(text: str, blocks: dict[str, str]) -> str:
    """Return a document with each block between its marks ``<!-- name -->`` and ``<!-- end -->``.

    Raises:
        ValueError: The document lacks a mark.

    >>> filled("<!-- a -->\\nold\\n<!-- end -->", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- end -->'
    """
    for name, block in blocks.items():
        # Never past the next mark, whatever is between them.
        pattern = re.compile(rf"(?<=<!-- {name} -->\n)(?:(?!<!--).)*(?=\n<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda _, block=block: block, text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{count} places for '{name}'")
    return text


def main() -> None:
    """Write them."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
