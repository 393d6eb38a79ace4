"""The settings of a run on disk, read without torch: to refuse other settings at once, and to keep defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from bancache.errors import CheckpointError, MismatchError
from bancache.models.header import check_header
from bancache.models.torch_file import read_torch_file
from bancache.system.checked import Size, checked
from bancache.system.fingerprint import short
from bancache.training.recipe import with_additions

# Added to a checkpoint's name while its run is not finished.
SUFFIX = ".resume"
# The key of the fingerprint of the weights that a run started from; other runs lack it.
START = "start_weights"
# Values of settings that are missing in older files.
_OLD_VALUES = {"share_ends": "none", "label_weight": 1.0, "ranks": 1}
# Settings whose key on disk is another word.
_SHOWN = {"share_ends": "share layers", "normalisation": "normalization"}


class _Architecture(Struct, frozen=True):
    image_size: tuple[Size, Size] | None = None


class _Settings(Struct):
    """What is looked at of the settings of a run that is under way; the training compares all of them."""

    recipe: dict[str, Any] = {}
    architecture: _Architecture = _Architecture()
    data: dict[str, Any] = {}
    view_space: dict[str, str | float | bool | None] = {}


def recorded_run(out: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the file and the settings of the run that is finished or under way at ``out``.

    Return None if there is none, or if its file cannot be read here: the training then says why.
    """
    finished = _plain_values(out)
    state = _plain_values(path := Path(f"{out}{SUFFIX}")) if finished is None else None
    try:
        if finished is not None:
            check_header(header := json.loads(finished["header"]))
            return out, header
        if state is not None:
            checked(run := state["run"], _Settings, name=path, error=CheckpointError)
            return path, run
    except (CheckpointError, KeyError, TypeError, ValueError, RecursionError):
        pass  # found and said by the one who loads it
    return None


def header_of(path: Path) -> dict[str, Any] | None:
    """Return the header of a checkpoint, or None if it cannot be read here."""
    found = recorded_run(path)
    return found[1] if found and found[0] == path else None


def require_same(now: dict[str, Any], stored: dict[str, Any], what: str) -> None:
    """Check settings with the keys of a checkpoint's header against those of ``what``; raise ``MismatchError``."""
    for key, value in now.items():
        before, after = stored.get(key, _OLD_VALUES.get(key)), value
        if key == "recipe" and isinstance(before, dict):
            before, after = with_additions(before), with_additions(after)
        # "data" is only a path; "data_fingerprint" stands for the content.
        if key == "data" or before == after:
            continue
        name = _SHOWN.get(key, key)
        if isinstance(before, dict) and isinstance(after, dict):
            changed = next(field for field in {**before, **after} if before.get(field) != after.get(field))
            name, before, after = f"{name}'s {changed}", before.get(changed), after.get(changed)
        raise MismatchError.between(
            f"{what}: {name.replace('_', ' ')}",
            stored=_shown(before),
            given=_shown(after),
            hint="use the same settings, another --out, or --overwrite to start anew",
        )


def _plain_values(path: Path) -> dict[str, Any] | None:
    """Return the dict in a file of ``save_tensors``, its tensors unread; None if that is not possible."""
    try:
        content = read_torch_file(path).content
    except CheckpointError:  # found and said by the one who loads it
        return None
    return content if isinstance(content, dict) else None


def _shown(value: Any) -> str:
    return f"'{short(value)}'" if isinstance(value, str) and len(value) == 64 else f"{value}"
