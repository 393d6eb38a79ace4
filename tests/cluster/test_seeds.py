"""Seeds are tasks: the files are those of one process, and a seed that nobody wants stops."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from contracts.killing import tree
from contracts.tiny import CPU, RECIPE, architecture
from sources.tiny import Heard

from bancache.cluster import seeds
from bancache.cluster.engine import Engine
from bancache.cluster.seeds import generations_of_seed, run_seeds, study_of_seed
from bancache.errors import StoppedError, UsageError
from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import read_records
from bancache.sources.spec import DataSpec
from bancache.study.arms_file import read_study
from bancache.study.from_file import run_study
from bancache.study.generations import Experiment, run_generations
from bancache.study.running import Place
from bancache.system.signals import Interrupt


def threads(count: int) -> Engine:
    return Engine(ThreadPoolExecutor(count), lambda: count)


def test_workers_make_the_files_of_one_process(
    spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment(
        data=spec,
        architecture=architecture(),
        recipe=replace(RECIPE, epochs=1),
        views="crop1-flip",
        num_views=2,
        encoding="root4",
        batch_size=32,
        generations=1,
        seeds=(0, 1),
    )
    found = []
    for name in ("alone", "workers"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        if name == "workers":
            where: dict[str, Any] = {"out": "x", "cwd": str(Path.cwd()), "device": "cpu"}
            task = partial(generations_of_seed, experiment=experiment, **where)
            run_seeds(threads(2), (0, 1), task, progress=Heard(), interrupt=Interrupt())
        records = run_generations(experiment, Path("x"), device=CPU)
        assert len(records) == len(read_records(Path("x/results.jsonl")))
        models = {str(file): load_checkpoint(file).fingerprint for file in Path("x").rglob("gen*.pt")}
        caches = {file: content for file, content in tree(Path("x")).items() if ".zarr/" in file}
        found.append((models, caches))
    assert found[0] == found[1]
    assert len(found[1][0]) == 4


def test_workers_carry_out_a_study_from_a_file(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arms = "[arms.labels]\n[arms.doubled]\nlabel_weight = 2\n"
    Path("arms.toml").write_text(
        f'[study]\nseeds = [0, 1]\nviews = "crop1-flip"\nnum_views = 2\n[data]\nsource = "npz:{npz}"\n'
        f'[model]\nname = "convnet-4"\n[recipe]\nepochs = 1\nbatch_size = 16\n{arms}'
    )
    file = pickle.loads(pickle.dumps(read_study(Path("arms.toml"))))
    alone = run_study(file, Path("alone"), Place(device=CPU))
    task = partial(study_of_seed, file=file, out="x", cwd=str(tmp_path), device="cpu", eval_every=0)
    run_seeds(threads(2), (0, 1), task, progress=Heard(), interrupt=Interrupt())
    shared = read_records(Path("x/results.jsonl"))
    runs = [{(one["name"], one["seed"]): one["weights"] for one in found} for found in (alone, shared)]
    assert runs[0] == runs[1]
    assert len(runs[1]) == 4


def test_a_stop_reaches_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose command was stopped sees its interrupt."""
    monkeypatch.setattr(seeds, "_LOOK_EVERY_SECONDS", 0.01)
    wanted, begun, ended = [True], threading.Event(), threading.Event()
    monkeypatch.setattr(seeds, "_is_wanted", lambda: lambda: wanted[0])
    stop = Interrupt()

    def task(seed: int, interrupt: Interrupt) -> None:
        begun.set()
        stop.signal_number = 2
        interrupt.wait(30)
        if interrupt.signal_number == 15:
            ended.set()

    with pytest.raises(StoppedError):
        run_seeds(threads(1), (0, 1, 2), task, progress=Heard(), interrupt=stop)
    wanted[0] = False
    assert begun.wait(30)
    assert ended.wait(30)


def test_an_error_of_a_seed_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(seed: int, interrupt: Interrupt) -> None:
        raise UsageError(f"it was {seed}")

    with pytest.raises(UsageError, match=r"it was 4 \(seed 4, on \S+\)"):
        run_seeds(threads(1), (4,), task, progress=Heard(), interrupt=Interrupt())


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_worker_repeats_its_bits_if_the_command_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    told: list[bool] = []
    monkeypatch.setattr("bancache.system.device.make_deterministic", lambda: told.append(True))
    assert seeds._device("cpu", deterministic) == CPU
    assert told == [True] * deterministic
