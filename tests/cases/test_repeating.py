"""``--deterministic``: the same bits each time, on one kind of GPU; and a run that moves to another one says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts.calling import call, refuse, succeed
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture
from sources.tiny import Heard

from bancache.cluster.seeds import study_of_seed
from bancache.errors import StoppedError
from bancache.models.checkpoint import load_checkpoint
from bancache.report.results import read_records
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.study.arms_file import read_study
from bancache.system.signals import Interrupt
from bancache.training import TrainerOptions, run_for_labels, state, train
from bancache.training.step import Step
from bancache_cli import recipes
from bancache_cli import train as commands

# Runs several command lines in one process.
_MAIN = (
    "import sys; from bancache_cli import main; sys.exit(max(main(line.split()) for line in sys.argv[1:]))"
)


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "unset")  # so that it is taken away again
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def teacher(npz: Path, out: Path) -> list[str]:
    return f"train-teacher --data npz:{npz} --model convnet-4 --epochs 2 --out {out}".split()


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("command", ["train-teacher", "train-student", "dump"])
def test_torch_is_told_before_anything_is_computed(
    tmp_path: Path, npz: Path, teacher_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU repeats its bits anyway."""
    suit, told_then = recipes.suit, list[bool]()

    def suited(*asked: Any, **more: Any) -> Any:
        told_then.append(torch.are_deterministic_algorithms_enabled())
        return suit(*asked, **more)

    monkeypatch.setattr(commands, "suit", suited)
    first, cache = teacher(npz, tmp_path / "a.pt"), tmp_path / "a.zarr"
    dump = ["dump", "--teacher", str(teacher_path), "--num-views", "2", "--out", str(cache)]
    if command == "train-student":
        succeed(*dump)
    student = ["train-student", "--cache", str(cache), "--epochs", "1", "--out", str(tmp_path / "b.pt")]
    argv = {"train-teacher": first, "dump": dump, "train-student": student}[command]
    plain = succeed(*argv)
    told = succeed(*argv, "--overwrite", "--deterministic")
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert told_then == ([] if command == "dump" else [False, True])
    key = "digest" if command == "dump" else "weights"
    assert told[key] == plain[key]


STUDY = """
[study]
seeds = [0]
[data]
source = "npz:{}"
[model]
name = "convnet-2"
[recipe]
epochs = 1
[arms.labels]
"""


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("command", ["generations", "study"])
def test_so_it_is_for_all_models_of_a_sequence_or_a_study(tmp_path: Path, npz: Path, command: str) -> None:
    (tmp_path / "arms.toml").write_text(STUDY.format(npz))
    argv = {
        "generations": [
            "--data",
            f"npz:{npz}",
            "--model",
            "convnet-2",
            "--epochs",
            "1",
            "--generations",
            "1",
        ],
        "study": [str(tmp_path / "arms.toml")],
    }[command]
    found = []
    for name, more in (("plain", ()), ("told", ("--deterministic",))):
        succeed(command, *argv, *more, "--out", str(tmp_path / name))
        assert torch.are_deterministic_algorithms_enabled() == bool(more)
        found.append([line.get("weights") for line in read_records(tmp_path / name / "results.jsonl")])
    assert found[0] == found[1]
    assert any(found[0])


@pytest.mark.usefixtures("_as_before")
def test_a_worker_is_told_as_well(tmp_path: Path, npz: Path) -> None:
    (tmp_path / "arms.toml").write_text(STUDY.format(npz))
    where: dict[str, Any] = {"out": "x", "cwd": str(tmp_path), "device": "cpu", "eval_every": 0}
    study_of_seed(0, Interrupt(), file=read_study(tmp_path / "arms.toml"), deterministic=True, **where)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("_as_before")
def test_an_operation_that_cannot_repeat_its_bits_is_named(
    tmp_path: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Step, batch: Any) -> None:
        torch.zeros(2).put_(torch.tensor([0, 0]), torch.ones(2))

    monkeypatch.setattr(Step, "__call__", step)
    assert call(*teacher(npz, tmp_path / "a.pt")).code == 0
    refuse(2, ("put_",), *teacher(npz, tmp_path / "b.pt"), "--deterministic", hint="--deterministic")


def test_a_run_that_goes_on_on_another_device_is_warned_that_its_weights_are_of_neither(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_for_labels(architecture(), RECIPE, 0, spec, data, "crop1-flip")
    options, told = TrainerOptions(tmp_path / "a.pt", CPU), Heard()
    with monkeypatch.context() as patch:
        patch.setattr(state, "arithmetic", lambda device: {"device": "NVIDIA H200"})
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, interrupt=StopAfter(3))
    with pytest.raises(StoppedError):
        train(run, data, held_out, options, interrupt=StopAfter(3), progress=told)
    (warning,) = told.warnings
    assert "NVIDIA H200" in warning
    assert "cpu" in warning
    train(run, data, held_out, options, progress=told)
    assert len(told.warnings) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_two_trainings_on_one_kind_of_gpu_end_with_the_same_bits(tmp_path: Path, npz: Path) -> None:
    """In two processes, by replays of a captured step and step by step."""
    made = f"train-teacher --data npz:{npz} --model wrn-10-1 --epochs 2 --device cuda --deterministic -q"
    outs = [[tmp_path / f"{graph}{number}.pt" for graph in ("on", "off")] for number in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MAIN, *(f"{made} --graph {out.stem[:-1]} --out {out}" for out in pair)]
        )
        for pair in outs
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    first, second = ([load_checkpoint(out).fingerprint for out in pair] for pair in outs)
    assert first == second
