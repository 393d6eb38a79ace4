"""Calls the command line in this process, and holds every refusal to the same form."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.killing import tree

from bancache_cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left on its three ways out."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, and the proof that nothing else is there."""
        assert self.out.count("\n") == 1
        assert self.out.endswith("\n")
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@dataclass(frozen=True)
class Chain:
    """A folder with gen0.pt to gen2.pt and two caches, and what each command said."""

    folder: Path
    said: dict[str, dict[str, Any]]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def call(*argv: str | Path) -> Outcome:
    """Run a command as after ``bancache``."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(part) for part in argv])
    return Outcome(code, out.getvalue(), err.getvalue())


def succeed(*argv: str | Path) -> dict[str, Any]:
    """Run a command with ``--json`` that must work, and return what it says."""
    outcome = call(*argv, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.json


def refuse(code: int, message: str, *argv: str | Path, keep: Path | None = None) -> str:
    """Run a command that must be refused, and return its hint.

    One line says what, at most one more what to do, both again as one JSON object; nobody sees a traceback.

    Args:
        code: The exit code.
        message: A pattern that the whole error must match.
        argv: The command.
        keep: A folder of which no byte may change.
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
    told = outcome.json
    assert set(told) == {"error", "hint", "exit_code"}
    assert told["exit_code"] == code
    assert errors == [f"error: {told['error']}"]
    assert hints == ([f"hint: {told['hint']}"] if told["hint"] else [])
    assert re.fullmatch(message, told["error"]), told["error"]
    if keep:
        assert tree(keep) == before
    return str(told["hint"])
