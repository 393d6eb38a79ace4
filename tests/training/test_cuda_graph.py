"""Training by replays of a static step ends with the same bits as the eager loop.

Only the last test needs a CUDA device. The others call the captured function again instead of replaying a graph, so they
run everything except the capture itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contracts.calling import refuse
from contracts.replaying import pretend_to_capture
from contracts.stopping import StopAfter
from contracts.tiny import CPU, RECIPE, architecture, dump_tiny
from sources.tiny import Heard

from bancache.cache.reader import Cache
from bancache.errors import StoppedError, UsageError
from bancache.models.checkpoint import Checkpoint
from bancache.models.teacher import OnlineTargets, load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.capturing import Replay
from bancache.training import Recipe, Run, TrainerOptions, run_for_cache, run_for_labels, train
from bancache.training import cuda_graph as graph

CUDA = torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
SHORT = replace(RECIPE, epochs=3, loss="ban-l")


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, teacher_path: Path, spec: DataSpec, data: ImageSet
) -> Cache:
    path = tmp_path_factory.mktemp("cache") / "gen0.zarr"
    return dump_tiny(teacher_path, spec, data, path, num_views=3, encoding="root8")[0].cache


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a CPU pretend to capture; the list counts the replays of each capture."""
    return pretend_to_capture(monkeypatch)


def student(cache: Cache, spec: DataSpec, data: ImageSet, recipe: Recipe, dropout: float = 0.0) -> Run:
    net = {**architecture("wrn-10-1"), "dropout": dropout}
    return run_for_cache(net, recipe, 4, spec, data, cache)


def ended(checkpoint: Checkpoint) -> tuple[object, ...]:
    return checkpoint.fingerprint, checkpoint.header["history"], checkpoint.header["test"]


@pytest.mark.parametrize(
    ("recipe", "dropout"),
    [
        (SHORT, 0.3),
        (replace(SHORT, loss="kd", temperature=2.0, momentum=0.0), 0.0),
        (replace(SHORT, loss="cwtm", amp=True), 0.0),
        (replace(SHORT, loss="dkpp"), 0.0),
    ],
)
def test_replays_end_with_the_bits_of_the_eager_loop(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    replayed: list[int],
    recipe: Recipe,
    dropout: float,
) -> None:
    """Weights, batch norm's statistics, dropout, losses, learning rates: all that a checkpoint says."""
    run = student(cache, spec, data, recipe, dropout)
    one = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU, graph="off"), cache=cache)
    assert replayed == []
    other = train(run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU), cache=cache)
    assert replayed == [3 * 6]
    assert ended(one.checkpoint) == ended(other.checkpoint)


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, spec: DataSpec, data: ImageSet, held_out: ImageSet, cache: Cache
) -> tuple[object, ...]:
    """How the eager loop ends without a stop."""
    options = TrainerOptions(tmp_path_factory.mktemp("whole") / "a.pt", CPU, graph="off")
    run = student(cache, spec, data, SHORT, 0.3)
    return ended(train(run, data, held_out, options, cache=cache).checkpoint)


@pytest.mark.parametrize(("placement", "steps"), [("cpu", 0), ("cpu", 8), ("disk", 6), ("disk", 1)])
def test_stopped_after_any_step_replays_go_on_to_the_same_bits(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    replayed: list[int],
    whole: tuple[object, ...],
    steps: int,
    placement: str,
) -> None:
    """Also when the eager loop resumes a run that replays began."""
    run = student(cache, spec, data, SHORT, 0.3)
    options = TrainerOptions(tmp_path / "b.pt", CPU, placement="disk" if placement == "disk" else "cpu")
    for left in (steps, 2):
        with pytest.raises(StoppedError):
            train(run, data, held_out, options, cache=cache, interrupt=StopAfter(left))
    with pytest.raises(StoppedError):
        train(run, data, held_out, replace(options, graph="off"), cache=cache, interrupt=StopAfter(1))
    assert ended(train(run, data, held_out, options, cache=cache).checkpoint) == whole
    assert len(replayed) == 3


def test_labels_alone_are_replayed_too(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, replayed: list[int]
) -> None:
    """With fewer steps an epoch than a capture warms up with."""
    run = run_for_labels(architecture(), replace(RECIPE, batch_size=96), 0, spec, data, "crop1-flip")
    one = train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU, graph="off")).checkpoint
    assert ended(train(run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU)).checkpoint) == ended(one)
    assert replayed == [4]


def test_steps_that_cannot_be_captured_run_eagerly_and_the_reason_is_given(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    teacher_path: Path,
    replayed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A smaller last batch, a teacher online, and an error of torch during the capture."""
    smaller = replace(SHORT, epochs=1, batch_size=40, keep_last=True)
    run = student(cache, spec, data, smaller)
    train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU), cache=cache)
    online = OnlineTargets(load_teacher(str(teacher_path), device=CPU))
    run = student(cache, spec, data, replace(SHORT, epochs=1))
    expected = train(
        run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU, graph="off"), cache=cache
    ).checkpoint
    train(run, data, held_out, TrainerOptions(tmp_path / "c.pt", CPU), cache=cache, targets=online)
    assert replayed == []

    def refuse_to(body: Replay, device: torch.device) -> Replay:
        body()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graph, "capture", refuse_to)
    after = train(run, data, held_out, TrainerOptions(tmp_path / "d.pt", CPU), cache=cache).checkpoint
    assert ended(after) == ended(expected)
    options = TrainerOptions(tmp_path / "e.pt", CPU)
    object.__setattr__(options, "graph", "on")  # a CPU is refused before, without this
    for recipe, words in (
        (smaller, "last batch .* 16 .* 40"),
        (replace(SHORT, epochs=1), "not permitted when stream is capturing$"),
    ):
        with pytest.raises(UsageError, match=words):
            train(student(cache, spec, data, recipe), data, held_out, options, cache=cache)


def test_a_graph_on_a_cpu_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'cpu'"):
        TrainerOptions(tmp_path / "a.pt", CPU, graph="on")
    hint = refuse(
        2,
        ".*'cpu'",
        *(
            "train-teacher",
            "--data",
            "digits",
            "--out",
            tmp_path / "a.pt",
            "--device",
            "cpu",
            "--graph",
            "on",
        ),
        keep=tmp_path,
    )
    assert "--graph" in hint


def test_on_a_cpu_nothing_is_captured_and_nothing_said(
    tmp_path: Path, spec: DataSpec, data: ImageSet, held_out: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Heard()
    monkeypatch.setattr(graph, "capture", None)
    run = run_for_labels(architecture(), replace(RECIPE, epochs=1), 0, spec, data, "crop1-flip")
    train(run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU), progress=told)
    assert not any("graph" in note for note in told.notes)


def test_a_loss_that_decodes_targets_itself_agrees_with_decoded_targets(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    replayed: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, with the reference of the kernel: replays have the same bits."""
    from bancache.training import build

    run = student(cache, spec, data, SHORT)
    decoded = train(
        run, data, held_out, TrainerOptions(tmp_path / "a.pt", CPU, graph="off"), cache=cache
    ).checkpoint
    monkeypatch.setattr(build, "decodes_itself", lambda *_: True)
    eager = train(
        run, data, held_out, TrainerOptions(tmp_path / "b.pt", CPU, graph="off"), cache=cache
    ).checkpoint
    other = train(run, data, held_out, TrainerOptions(tmp_path / "c.pt", CPU), cache=cache).checkpoint
    assert ended(eager) == ended(other)
    losses = [[epoch["loss"] for epoch in each.header["history"]] for each in (decoded, eager)]
    # The last bits of a sum differ, and every step multiplies what differs: the first epoch shows the same loss.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("amp", "loss"), [(False, "ban-l"), (True, "ban-l"), (False, "dkpp")])
def test_on_a_gpu_a_graph_ends_with_the_bits_of_the_eager_loop(
    tmp_path: Path,
    spec: DataSpec,
    data: ImageSet,
    held_out: ImageSet,
    cache: Cache,
    amp: bool,
    loss: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With deterministic convolutions."""
    run = student(cache, spec, data, replace(SHORT, amp=amp, loss=loss), 0.3)
    told = Heard()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    one = train(
        run, data, held_out, TrainerOptions(tmp_path / "a.pt", CUDA, graph="off"), cache=cache
    ).checkpoint
    options = TrainerOptions(tmp_path / "b.pt", CUDA, graph="on")
    with pytest.raises(StoppedError):
        train(run, data, held_out, options, cache=cache, interrupt=StopAfter(8), progress=told)
    other = train(run, data, held_out, options, cache=cache, progress=told).checkpoint
    assert not any("step by step" in note for note in told.notes)
    assert ended(one) == ended(other)
