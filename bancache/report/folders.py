"""Folders of results, one or several that hold seeds of one study, read for tables and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bancache.errors import DataError, MismatchError, UsageError
from bancache.report.arms import ArmTable, arm_table
from bancache.report.results import RESULTS, Record, read_records
from bancache.report.sample_views import read_views
from bancache.report.settings import ARMS, SETTINGS, read_settings
from bancache.system import configs

_KINDS = ("run", "control", "dump", "ensemble", "agreement", "arm", "train", "teacher")
# Measured to be fast where a folder was made. They change how sums are rounded, as another GPU does, and nothing else.
_MEASURED = {("sequence", "batch_size"), ("recipe", "compile")}
_Tables = dict[str, dict[str, Any]]


class Results(NamedTuple):
    """The result lines, the sample views, if there are any, and the table of a study from a file, else None."""

    records: list[Record]
    views: Mapping[str, Any] | None
    arms: ArmTable | None


def read_results(paths: Sequence[Path]) -> Results:
    """Read folders that hold seeds of one study, or their results.jsonl.

    Raises:
        DataError: A folder holds no result, or a file is damaged.
        MismatchError: They differ in a setting other than the seeds.
        UsageError: Two of them hold the same seed, or one has no record of its settings.
    """
    folders = [path if path.is_dir() else path.parent for path in paths]
    lines = [_lines(path / RESULTS if path.is_dir() else path) for path in paths]
    settings = _settings(folders[0], needed=len(paths) > 1 or _has_arms(lines[0]))
    for folder in folders[1:]:
        _merge(folders[0], settings, folder)
    holders: dict[object, Path] = {}
    for folder, records in zip(folders, lines, strict=True):
        for seed in {record.get("seed") for record in records}:
            if holders.setdefault(seed, folder) is not folder:
                raise UsageError(
                    f"seed {seed} is in {holders[seed]} and in {folder}",
                    hint="report folders that hold different seeds",
                )
    merged = [record for records in lines for record in records]
    table = arm_table(settings, merged) if "arms" in settings else None
    return Results(merged, read_views(folders[0]), table)


def _lines(path: Path) -> list[Record]:
    records = [record for record in read_records(path) if record.get("kind") in _KINDS]
    if not records:
        raise DataError(
            f"{path} holds no finished run, cache or ensemble",
            hint="wait until the first model is trained, or name another results file",
        )
    return records


def _has_arms(records: Sequence[Record]) -> bool:
    return any(record["kind"] == "arm" for record in records)


def _settings(folder: Path, *, needed: bool) -> _Tables:
    """Return the tables of a folder's settings; empty if it has none and they are not needed."""
    if (folder / ARMS).exists():
        return read_settings(folder / ARMS)
    if not needed:
        return {}
    if not (folder / SETTINGS).exists():
        raise UsageError(
            f"{folder} has neither {ARMS} nor {SETTINGS}, which say what its results are of",
            hint="copy it there from the folder of the study",
        )
    tables = configs.read_toml(folder / SETTINGS, DataError)
    return {title: dict(table) for title, table in tables.items() if isinstance(table, dict)}


def _merge(first: Path, settings: _Tables, folder: Path) -> None:
    """Add the seeds of a folder to the settings of the first, which must otherwise be the same."""
    others = _settings(folder, needed=True)
    for title in {**settings, **others}:
        one, other = settings.get(title, {}), others.get(title, {})
        keys = [key for key in {**one, **other} if key != "seeds" and (title, key) not in _MEASURED]
        if differing := [key for key in keys if one.get(key) != other.get(key)]:
            key = differing[0]
            raise MismatchError(
                f"{title}.{key} is {one.get(key)} in {first}, and {other.get(key)} in {folder}",
                hint="report folders that hold seeds of one study",
            )
    if "study" in settings:
        settings["study"]["seeds"] = sorted({*settings["study"]["seeds"], *others["study"]["seeds"]})
