"""Options that had another name in the previous version: each is refused with its new name, for one version."""

from __future__ import annotations

from bancache.errors import UsageError

_RENAMED = {"--share-ends": "--share-layers", "--residence": "--placement", "--entries": "--num-pairs"}
_REMOVED = {
    "--workers": "start the same command with --join in each process: "
    "for r in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$r bancache dump ... --join & done; wait",
    "--jobs": "run the same command in several shells, each with other --seeds; they may share --out",
}


def refuse_old_options(argv: list[str]) -> None:
    """Look for options of the previous version in a command line.

    Raises:
        UsageError: There is one; the hint says what to use instead.
    """
    for word in argv:
        name = word.partition("=")[0]
        if name == "--":
            return
        if name in _RENAMED:
            raise UsageError(f"{name} has a new name", hint=f"use {_RENAMED[name]}")
        if name in _REMOVED:
            raise UsageError(f"{name} was removed", hint=_REMOVED[name])
