"""Manifests, records, notes, result lines, run files, training states and options, changed at random."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from torture.mutating import Chance, Job, Mutator

from bancache.cache.info import describe
from bancache.cache.manifest_io import sign
from bancache.cache.reader import open_cache
from bancache.dumping.repair import verify_deeply
from bancache.report import write_report
from bancache.study.sequence_folder import _claim
from bancache.system.locks import describe_holder, is_gone, read_note

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1"


def _copy(folder: Path, name: str) -> Path:
    whole = OLD / name
    return Path(
        shutil.copytree(whole, folder / name) if whole.is_dir() else shutil.copy(whole, folder / name)
    )


def _sealed(value: Any) -> str:
    """Give a JSON value the digest that fits, if there can be one."""
    if not isinstance(value, dict):
        return json.dumps(value)
    value.pop("digest", None)
    try:
        return json.dumps(sign(value))
    except ValueError:
        return json.dumps(value)


def _read(cache: Path) -> None:
    opened = open_cache(cache)
    opened.read_view(0)


def manifest_values(folder: Path, chance: Chance) -> Job:
    """A manifest with other values and a digest that fits."""
    cache = _copy(folder, "gen0.zarr")
    stored = json.loads((cache / "manifest.json").read_text())
    where = chance.one_of(["promise", "promise", "summary", "files", "all"])
    if where == "all":
        stored = chance.value(stored)
    else:
        stored[where] = chance.value(stored[where])
    (cache / "manifest.json").write_text(_sealed(stored))
    student: list[str | Path] = [
        "train-student",
        "--cache",
        cache,
        "--data",
        "digits",
        "--epochs",
        "1",
        "--batch-size",
        "16",
    ]
    jobs: list[Job] = [
        partial(describe, cache),
        partial(_read, cache),
        partial(verify_deeply, cache),
        ["info", cache],
        ["verify", cache, "--deep", "--json"],
        ["repair", cache],
        ["prune", cache, "--num-views", "1", "--out", folder / "small.zarr"],
        [*student, "--out", folder / "gen1.pt"],
    ]
    job: Job = chance.one_of(jobs)
    return job


def manifest_bytes(folder: Path, chance: Chance) -> Job:
    """A manifest with other bytes."""
    cache = _copy(folder, "gen0.zarr")
    file = cache / chance.one_of(["manifest.json", "zarr.json", "q/c/0/0/0"])
    file.write_bytes(chance.bytes(file.read_bytes()))
    job: Job = chance.one_of([partial(_read, cache), partial(verify_deeply, cache), ["info", cache]])
    return job


def record_values(folder: Path, chance: Chance) -> Job:
    """A record of an unfinished cache with other values and a digest that fits; the dump goes on."""
    part = _copy(folder, "part.zarr")
    (file,) = (part / ".regions").glob("*.json")
    file.write_text(_sealed(chance.value(json.loads(file.read_text()))))
    dump = ["dump", "--teacher", OLD / "gen0.pt", "--num-views", "3", "--out", part]
    job: Job = chance.one_of(
        [["info", part], dump, ["merge", part, OLD / "gen0.zarr", "--out", folder / "m.zarr"]]
    )
    return job


def result_lines(folder: Path, chance: Chance) -> Job:
    """Result lines with other values or other bytes; the page is written from them."""
    run = _copy(folder, "run")
    file = run / "results.jsonl"
    if chance.one_of([True, False, False]):
        file.write_bytes(chance.bytes(file.read_bytes()))
    else:
        records = [json.loads(line) for line in file.read_text().splitlines()]
        place = chance.one_of(range(len(records)))
        records[place] = chance.value(records[place])
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    page = partial(write_report, run, folder / "page.html")
    job: Job = chance.one_of([page, page, page, ["report", run, "--out", folder / "page.html"]])
    return job


def run_files(folder: Path, chance: Chance) -> Job:
    """A run.toml with other bytes or values; a study claims its seeds in it."""
    import tomllib

    import tomli_w

    from bancache.sources.spec import DataSpec
    from bancache.study.experiment import Experiment
    from bancache.training.recipe import Recipe

    file = _copy(folder, "run") / "run.toml"
    stored = tomllib.loads(file.read_text())
    experiment = Experiment(
        DataSpec("digits", 48), stored["model"], Recipe(**{**stored["recipe"], "milestones": ()}), "crop1", 1, "root4",
        256, 1, (0,), controls=True,
    )  # fmt: skip
    text = file.read_bytes()
    try:
        values = tomli_w.dumps(chance.value(stored)).encode()
    except (TypeError, ValueError, AttributeError):
        values = chance.bytes(text)  # TOML has no such value
    file.write_bytes(chance.one_of([values, values, chance.bytes(text)]))
    return partial(_claim, experiment, file)


def notes(folder: Path, chance: Chance) -> Job:
    """A note on the holder of a lock."""
    note = {"pid": 1, "born": 5, "host": "a", "since": "b", "machine": "c", "token": "d"}
    (folder / "note").write_text(json.dumps(chance.value(note)))

    def use() -> None:
        found = read_note(folder / "note")
        describe_holder(found)
        is_gone(found)

    return use


def training_states(folder: Path, chance: Chance) -> Job:
    """The state of an unfinished training; it goes on."""
    import torch

    file = _copy(folder, "part.pt.resume")
    if chance.one_of([True, False]):
        file.write_bytes(chance.bytes(file.read_bytes()))
    else:
        content = torch.load(file, weights_only=True)  # noqa: TID251
        content = chance.value(content)
        torch.save(content, file)
    return ["train-student", "--cache", OLD / "gen0.zarr", "--epochs", "3", "--out", folder / "part.pt"]


_OPTIONS = [
    *("--num-views", "--epochs", "--batch-size", "--lr", "--temperature", "--alpha", "--limit", "--image-size", "--seed"),
    *("--views", "--encoding", "--max-kl", "--data", "--model", "--loss", "--out", "--device", "--teacher", "--cache"),
    *("--seeds", "--rank", "--world-size", "--weights", "--precision", "--placement", "--recipe", "--dropout", "--json"),
]  # fmt: skip
_VALUES = [
    *("0", "-1", "1e400", "nan", "9" * 400, "", "\0", "all", "digits", "folder:", "npz:/dev/null", "cpu", "cuda:99"),
    *("crop1", "crop99999", "root4", "topk-99999999", "..", "\x1b[2J", "\udcff", "1,1", "0,x", "convnet-0", "resnet18"),
]  # fmt: skip
_COMMANDS = (
    "dump",
    "train-student",
    "plan",
    "info",
    "verify",
    "prune",
    "extend",
    "merge",
    "evaluate",
    "report",
    "pull",
)


def options(folder: Path, chance: Chance) -> Job:
    """A command with options and values that do not belong together."""
    argv: list[str | Path] = [chance.one_of(_COMMANDS)]
    argv += chance.one_of(
        [[], [OLD / "gen0.zarr"], [OLD / "gen0.pt"], [OLD / "run"], [chance.one_of(_VALUES)]]
    )
    if argv[0] in ("dump", "plan", "train-student"):
        argv += chance.one_of([["--teacher", OLD / "gen0.pt"], ["--cache", OLD / "gen0.zarr"]])
    for _ in range(chance.one_of(range(1, 4))):
        argv += [chance.one_of(_OPTIONS), chance.one_of(_VALUES)]
    # Nothing can be written there, so what is accepted ends before it trains for ever.
    return [*argv, "--out", "/dev/null/out"]


MUTATORS: dict[str, Mutator] = {
    function.__name__: function
    for function in (
        manifest_values, manifest_bytes, record_values, result_lines, run_files, notes, training_states, options,
    )
}  # fmt: skip
