"""Models that train side by side end with the bits that each has alone, whatever happens to the process.

On a CPU the graph is a function that is called again, so everything runs but the capture and its streams; a test
marked ``gpu`` has these.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.replaying import pretend_to_capture
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny
from sources.tiny import Heard

from bancache.cache.reader import Cache
from bancache.errors import NonFiniteError, StoppedError
from bancache.models.checkpoint import Checkpoint, load_checkpoint
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.training import Run, TrainerOptions, loop, run_for_cache, run_for_labels
from bancache.training.loop import Job, train, train_side_by_side
from bancache.training.memory import training_needs
from bancache.training.state import read_state

SHORT = replace(RECIPE, epochs=2, loss="ban-l")
NET = architecture("wrn-10-1")


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Cache:
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    return dump_tiny(teacher_path, spec, data, path, num_views=2, encoding="root8")[0].cache


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a CPU pretend to capture; the list counts the replays of each capture."""
    return pretend_to_capture(monkeypatch)


def runs(
    cache: Cache, spec: DataSpec, data: ImageSet, dropout: float = 0.0
) -> list[tuple[Run, Cache | None]]:
    """Two students and a model on labels, each with its own seed."""
    net = {**NET, "dropout": dropout}
    taught = [run_for_cache(net, SHORT, seed, spec, data, cache) for seed in (1, 2)]
    return [*((run, cache) for run in taught), (run_for_labels(net, SHORT, 3, spec, data, "crop1"), None)]


def jobs(given: list[tuple[Run, Cache | None]], folder: Path, device: torch.device = CPU) -> list[Job]:
    folder.mkdir(exist_ok=True)
    return [
        Job(run, TrainerOptions(folder / f"{number}.pt", device), cache)
        for number, (run, cache) in enumerate(given)
    ]


def alone(job: Job, data: ImageSet, held_out: ImageSet, folder: Path) -> Checkpoint:
    options = TrainerOptions(folder / f"alone-{Path(job.options.out).name}", job.options.device)
    return train(job.run, data, held_out, options, cache=job.cache).checkpoint


def ended(checkpoint: Checkpoint) -> tuple[object, ...]:
    return checkpoint.fingerprint, checkpoint.header["history"], checkpoint.header["test"]


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
) -> list[tuple[object, ...]]:
    """How each of the three ends alone, step by step."""
    folder = tmp_path_factory.mktemp("whole")
    return [
        ended(alone(job, data, held_out, folder)) for job in jobs(runs(cache, spec, data), folder / "jobs")
    ]


def test_each_ends_with_its_own_bits_by_one_replay_for_all(
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    tmp_path: Path,
    replayed: list[int],
    whole: list[tuple[object, ...]],
) -> None:
    asked = jobs(runs(cache, spec, data), tmp_path)
    found = train_side_by_side(asked, data, held_out)
    assert replayed == [SHORT.epochs * (len(data) // SHORT.batch_size)]
    assert [one.fresh for one in found] == [True] * 3
    assert [one.checkpoint.header["side_by_side"] for one in found] == [3] * 3
    assert [ended(one.checkpoint) for one in found] == whole


def test_a_stop_saves_all_at_one_step_and_they_go_on_to_the_same_bits(
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    tmp_path: Path,
    replayed: list[int],
    whole: list[tuple[object, ...]],
) -> None:
    asked = jobs(runs(cache, spec, data), tmp_path / "stopped")
    with pytest.raises(StoppedError):
        train_side_by_side(asked, data, held_out, interrupt=StopAfter(8))
    states = [read_state(job.options.state_path) for job in asked]
    steps = len(data) // SHORT.batch_size
    assert [state["epoch"] * steps + state["step"] for state in states] == [9] * 3
    found = train_side_by_side(asked, data, held_out)
    assert [ended(one.checkpoint) for one in found] == whole


def test_one_that_was_saved_earlier_catches_up_alone(
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    tmp_path: Path,
    replayed: list[int],
    whole: list[tuple[object, ...]],
) -> None:
    asked = jobs(runs(cache, spec, data), tmp_path)
    with pytest.raises(StoppedError):
        train_side_by_side(asked, data, held_out, interrupt=StopAfter(8))
    asked[1].options.state_path.unlink()  # as if the process had been killed before its first save
    replayed.clear()
    found = train_side_by_side(asked, data, held_out)
    steps = len(data) // SHORT.batch_size
    assert replayed == [9, SHORT.epochs * steps - 9]
    assert [ended(one.checkpoint) for one in found] == whole


def test_a_finished_one_is_left_alone(
    cache: Cache, spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path, replayed: list[int]
) -> None:
    asked = jobs(runs(cache, spec, data), tmp_path)
    first = train_side_by_side(asked[:1], data, held_out)
    found = train_side_by_side(asked, data, held_out)
    assert [one.fresh for one in found] == [False, True, True]
    assert ended(found[0].checkpoint) == ended(first[0].checkpoint)
    assert [one.fresh for one in train_side_by_side(asked, data, held_out)] == [False] * 3


def test_models_with_dropout_train_one_after_another(
    cache: Cache, spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path, replayed: list[int]
) -> None:
    heard, asked = Heard(), jobs(runs(cache, spec, data, dropout=0.3), tmp_path)
    found = train_side_by_side(asked, data, held_out, progress=heard)
    assert any("random numbers" in note for note in heard.notes)
    assert [ended(one.checkpoint) for one in found] == [
        ended(alone(job, data, held_out, tmp_path)) for job in asked
    ]


def test_runs_of_other_lengths_train_one_after_another(
    cache: Cache, spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path, replayed: list[int]
) -> None:
    heard, (first, second, _) = Heard(), jobs(runs(cache, spec, data), tmp_path)
    longer = replace(second, run=replace(second.run, recipe=replace(SHORT, epochs=3)))
    found = train_side_by_side([first, longer], data, held_out, progress=heard)
    assert [len(one.checkpoint.header["history"]) for one in found] == [2, 3]
    assert any("epochs" in note for note in heard.notes)
    assert "side_by_side" not in found[0].checkpoint.header


def test_on_a_cpu_nothing_is_captured(
    cache: Cache, spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path
) -> None:
    heard, asked = Heard(), jobs(runs(cache, spec, data)[:2], tmp_path)
    found = train_side_by_side(asked, data, held_out, progress=heard)
    assert not any("another" in note for note in heard.notes)
    assert "side_by_side" not in found[0].checkpoint.header


def test_one_that_diverges_ends_all_and_leaves_no_lock(
    cache: Cache, spec: DataSpec, data: ImageSet, held_out: ImageSet, tmp_path: Path, replayed: list[int]
) -> None:
    good, bad = jobs(runs(cache, spec, data)[:2], tmp_path)
    diverging = replace(bad, run=replace(bad.run, recipe=replace(SHORT, lr=1e30)))
    with pytest.raises(NonFiniteError):
        train_side_by_side([good, diverging], data, held_out)
    assert train_side_by_side([good], data, held_out)[0].fresh


@pytest.mark.parametrize(
    ("count", "fitting", "sizes"), [(3, 100, [3]), (5, 100, [3, 2]), (4, 2, [2, 2]), (3, 0, [1, 1, 1])]
)
def test_as_many_train_together_as_fit_the_memory(
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    tmp_path: Path,
    replayed: list[int],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    fitting: int,
    sizes: list[int],
) -> None:
    run = runs(cache, spec, data)[0][0]
    needs = training_needs(run.architecture, run.recipe, data, held_out, run.space, CPU)
    free = int((fitting + 0.5) * needs.of(run.recipe.batch_size))
    monkeypatch.setattr(loop, "free_bytes", lambda device: free)
    asked = jobs([(run, cache)] * count, tmp_path)
    assert [len(group) for group in loop._groups(asked, data, held_out)] == sizes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_on_a_gpu_each_ends_with_its_own_bits(
    cache: Cache,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With deterministic convolutions."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    heard, asked = Heard(), jobs(runs(cache, spec, data), tmp_path, torch.device("cuda"))
    found = train_side_by_side(asked, data, held_out, progress=heard)
    assert [one.checkpoint.header["side_by_side"] for one in found] == [3] * 3, heard.notes
    for one, job in zip(found, asked, strict=True):
        assert ended(load_checkpoint(job.options.out)) == ended(one.checkpoint)
        assert ended(one.checkpoint) == ended(alone(job, data, held_out, tmp_path))
