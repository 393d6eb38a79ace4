"""Calls the command line in this process, and checks that every refusal has the same form."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.killing import tree

from bancache_cli import app, main


@dataclass(frozen=True)
class Outcome:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on stdout; nothing else may be there."""
        assert self.out.count("\n") == 1
        assert self.out.endswith("\n")
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Chain:
    """A folder with gen0.pt to gen2.pt and two caches, and the JSON output of each command."""

    folder: Path
    said: dict[str, dict[str, Any]]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def call(*argv: str | Path) -> Outcome:
    """Run a command; ``argv`` without ``bancache``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(part) for part in argv])
    return Outcome(code, out.getvalue(), err.getvalue())


def succeed(*argv: str | Path) -> dict[str, Any]:
    """Run a command with ``--json`` that must succeed, and return its output."""
    outcome = call(*argv, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def require_commands(hint: str) -> None:
    """Every whole command in a hint is one that the command line takes."""
    for typed in re.findall(r"`bancache ([^`]+)`", hint):
        name, *words = shlex.split(typed)
        if words and "--help" not in words:
            commands: dict[str, Any] = vars(app._built())["commands"]
            commands[name].make_context(name, words)


def refuse(
    code: int,
    message: str | tuple[str, ...],
    *argv: str | Path,
    hint: str = "",
    keep: Path | None = None,
) -> str:
    """Run a command that must be refused, and return its hint.

    The error is one line on stderr and the hint at most one more; both are also one JSON object on stdout.

    Args:
        code: The exit code.
        message: Substrings that the error must contain (values: numbers, names, paths); or one pattern to search for.
        argv: The command.
        hint: A command or option that the hint must name.
        keep: A folder in which no byte may change.
    """
    before = tree(keep) if keep else {}
    outcome = call(*argv, "--json")
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert outcome.code == code, outcome.err
    assert len(errors) == 1, outcome.err
    assert lines[-len(hints) - 1 :] == [*errors, *hints], outcome.err
    assert "Traceback" not in outcome.err
    shown = outcome.json
    assert set(shown) == {"error", "hint", "exit_code"}
    assert shown["exit_code"] == code
    assert errors == [f"error: {shown['error']}"]
    assert hints == ([f"hint: {shown['hint']}"] if shown["hint"] else [])
    if isinstance(message, str):
        assert re.search(message, shown["error"]), shown["error"]
    else:
        assert all(value in shown["error"] for value in message), (message, shown["error"])
    assert hint in shown["hint"], shown["hint"]
    require_commands(shown["hint"])
    if keep:
        assert tree(keep) == before
    return str(shown["hint"])
