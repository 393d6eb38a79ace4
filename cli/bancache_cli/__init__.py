"""The command line of bancache: parses, calls the library, prints."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; torch is imported only by commands that need it."""
    from bancache_cli.app import run

    return run(sys.argv[1:] if argv is None else argv)
