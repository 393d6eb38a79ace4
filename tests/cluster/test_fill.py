"""The process that gives shards to workers: whatever they do, the cache is that of one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contracts.killing import tree
from contracts.memory import folder_in_memory
from contracts.small_cache import SHARD_BYTES
from contracts.stored import stored
from contracts.tiny import CPU, THREE_SHARDS, dump_tiny, settings
from sources.tiny import Heard

from bancache.cluster import fill, tasks
from bancache.cluster.engine import Engine
from bancache.cluster.fill import Planned, dump_by
from bancache.cluster.tasks import Origin, Wrote
from bancache.dumping import DumpResult
from bancache.dumping.prepare import prepare
from bancache.errors import CheckpointError, ClusterError, StoppedError
from bancache.models.teacher import load_teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt

Dump = Callable[..., DumpResult]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, THREE_SHARDS)
    monkeypatch.setattr(fill, "_LOOK_EVERY_SECONDS", 0.01)


@pytest.fixture(scope="module")
def profile(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "default"))


@pytest.fixture(scope="module")
def whole(profile: str, teacher_path: Path, spec: DataSpec, data: ImageSet) -> Iterator[dict[str, bytes]]:
    with folder_in_memory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        dump_tiny(teacher_path, spec, data, folder / "a.zarr", profile=profile)
        yield tree(folder / "a.zarr")


@pytest.fixture
def planned(profile: str, teacher_path: Path, spec: DataSpec, data: ImageSet) -> Planned:
    teacher = load_teacher(str(teacher_path), device=CPU)
    asked = settings(teacher, profile=profile)
    prepared = prepare(teacher, data, spec, asked, device=CPU, progress=Silent())
    return Planned(prepared.binding, Origin(), {}, {}, (), ())


def threads(count: int, **changes: Any) -> Engine:
    return Engine(ThreadPoolExecutor(count), lambda: count, **changes)


def run(engine: Engine, planned: Planned, out: Path, **changes: Any) -> DumpResult:
    given = {"progress": Heard(), "interrupt": Interrupt(), "started": time.monotonic(), **changes}
    with engine.executor:
        return dump_by(engine, planned, out, **given)


@pytest.mark.parametrize(("profile", "count"), [("default", 1), ("compact", 4)], indirect=["profile"])
def test_any_number_of_workers_makes_the_same_cache(
    planned: Planned, whole: dict[str, bytes], tmp_path: Path, count: int
) -> None:
    done = run(threads(count), planned, tmp_path / "a.zarr")
    assert (done.num_pairs, done.finished) == (4 * 96, True)
    assert tree(tmp_path / "a.zarr") == whole
    again = run(threads(count), planned, tmp_path / "a.zarr")
    assert (again.num_pairs, again.seconds) == (0, 0.0)


@pytest.mark.parametrize(("profile", "count"), [("default", 1), ("compact", 4)], indirect=["profile"])
def test_a_worker_reads_streamed_pictures_once_for_all_views(
    planned: Planned,
    profile: str,
    count: int,
    teacher_path: Path,
    data: ImageSet,
    spec: DataSpec,
    whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    streamed, counted = stored(data)
    teacher = load_teacher(str(teacher_path), device=CPU)
    asked = settings(teacher, profile=profile)
    forward = prepare(teacher, streamed, spec, asked, device=CPU, progress=Silent()).forward
    tasks.alone(tasks.keep_open, Origin(), planned.binding.manifest, forward)
    run(threads(count), replace(planned, streamed=forward.renderer.streams), tmp_path / "a.zarr")
    assert tree(tmp_path / "a.zarr") == whole
    if count == 1:  # where a block ends, several threads may change the order of shards
        assert [counted.reads[sample] for sample in range(len(data))] == [1] * len(data)


def test_two_dumps_of_one_cache_at_once_share_it(
    planned: Planned, whole: dict[str, bytes], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(2) as both:
        runs = [both.submit(run, threads(2), planned, tmp_path / "a.zarr") for _ in range(2)]
        done = [one.result(60) for one in runs]
    assert sum(one.num_pairs for one in done) == 4 * 96
    assert tree(tmp_path / "a.zarr") == whole


def test_no_more_shards_are_given_away_than_workers_can_begin(planned: Planned, tmp_path: Path) -> None:
    pending: set[Future[Any]] = set()
    most = 0

    class Counting(ThreadPoolExecutor):
        def submit(self, *given: Any, **more: Any) -> Future[Any]:
            nonlocal most
            future = super().submit(*given, **more)
            pending.add(future)
            most = max(most, sum(not one.done() for one in pending))
            return future

    run(Engine(Counting(2), lambda: 2), planned, tmp_path / "a.zarr")
    assert 1 < most <= 3


def test_a_stop_finishes_what_is_under_way_and_the_next_dump_goes_on(
    planned: Planned, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt, real = Interrupt(), tasks.write_shard

    def write(cache: str, fingerprint: str, index: int, origin: Origin) -> Wrote:
        interrupt.signal_number = 2
        return real(cache, fingerprint, index, origin)

    monkeypatch.setattr(fill, "write_shard", write)
    with pytest.raises(StoppedError) as stopped:
        run(threads(2), planned, tmp_path / "a.zarr", interrupt=interrupt)
    assert stopped.value.exit_code == 130
    records = list((tmp_path / "a.zarr" / ".regions").iterdir())
    assert 0 < len(records) <= 3
    assert [file.name for file in (tmp_path / "a.zarr" / ".claims").iterdir()] == ["lock"]
    monkeypatch.setattr(fill, "write_shard", real)
    done = run(threads(2), planned, tmp_path / "a.zarr")
    assert 0 < done.num_pairs < 4 * 96
    assert tree(tmp_path / "a.zarr") == whole


def test_a_stop_does_not_wait_for_workers_that_are_gone(planned: Planned, tmp_path: Path) -> None:
    class Lost(ThreadPoolExecutor):
        def submit(self, *given: Any, **more: Any) -> Future[Any]:
            interrupt.signal_number = 2
            return Future()

    interrupt, looks = Interrupt(), iter([1])
    with pytest.raises(StoppedError):
        run(Engine(Lost(1), lambda: next(looks, 0)), planned, tmp_path / "a.zarr", interrupt=interrupt)


def test_an_error_of_a_worker_names_the_shard_and_the_host(planned: Planned, tmp_path: Path) -> None:
    tasks._OPEN.of = None
    lost = Planned(planned.binding, Origin(((str(tmp_path / "none.pt"), None),)), {}, {}, (), ())
    with pytest.raises(CheckpointError, match=r"none.pt.*\(shard 0 .*, on \S+\)$"):
        run(threads(1), lost, tmp_path / "a.zarr")


@pytest.mark.parametrize("error", [CancelledError(), ImportError("no module named bancache")])
def test_errors_of_the_engine_are_explained(planned: Planned, tmp_path: Path, error: Exception) -> None:
    class Failing(ThreadPoolExecutor):
        def submit(self, *given: Any, **more: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if isinstance(error, CancelledError):
                future.cancel()
                future.set_running_or_notify_cancel()
            else:
                future.set_exception(error)
            return future

    engine = Engine(Failing(1), lambda: 1, lambda found: ClusterError(f"it was {type(found).__name__}"))
    with pytest.raises(ClusterError, match=f"it was {type(error).__name__}.*shard 0"):
        run(engine, planned, tmp_path / "a.zarr")


def test_a_worker_that_writes_elsewhere_is_found_out(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "_SHOWN_SECONDS", 0.05)
    monkeypatch.setattr(fill, "write_shard", lambda *given: Wrote(True))
    with pytest.raises(ClusterError) as found:
        run(threads(1), planned, tmp_path / "a.zarr")
    assert "same folder" in found.value.hint


def test_workers_may_come_late(planned: Planned, whole: dict[str, bytes], tmp_path: Path) -> None:
    looks = iter([0, 0, 0])
    heard = Heard()
    engine = Engine(ThreadPoolExecutor(2), lambda: next(looks, 2))
    run(engine, planned, tmp_path / "a.zarr", progress=heard)
    assert tree(tmp_path / "a.zarr") == whole


def test_an_outcome_says_what_a_worker_warns_of(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, real = Heard(), tasks.write_shard

    def write(*given: Any) -> Wrote:
        return Wrote(real(*given).wrote, ("will be a mixture",))

    monkeypatch.setattr(fill, "write_shard", write)
    run(threads(1), planned, tmp_path / "a.zarr", progress=heard)
    assert any("mixture" in warning for warning in heard.warnings)
