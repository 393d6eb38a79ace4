"""Text between marks in a document: written by a program, compared by a test."""

from __future__ import annotations

import re
from collections.abc import Mapping


def filled(text: str, blocks: Mapping[str, str]) -> str:
    r"""Return a document with each block between its marks ``<!-- name -->`` and ``<!-- end -->``.

    Raises:
        ValueError: The document does not have the marks exactly once.

    >>> filled("<!-- a -->\nold\n<!-- end -->", {"a": "new"})
    '<!-- a -->\nnew\n<!-- end -->'
    """
    for name, block in blocks.items():
        # Never past the next mark, whatever is between them.
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n)(?:(?!<!--).)*(\n<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, block=block: found[1] + block + found[2], text)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"the marks of '{name}' are there {count} times")
    return text
