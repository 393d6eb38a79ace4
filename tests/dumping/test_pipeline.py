"""A cache is filled: the teacher runs ahead of the disk, and any number of processes work together."""

from __future__ import annotations

import fcntl
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from contracts.damage import DAMAGES
from contracts.failing import Killed
from contracts.killing import tree
from contracts.small_cache import (
    SHARD_BYTES,
    SMALL_SHARD,
    facts,
    fields,
    manifest,
    summarize,
    write,
    write_some,
)

from bancache.cache import Shard
from bancache.cache.claims import Claims
from bancache.cache.opening import open_writer
from bancache.cache.writer import CacheWriter
from bancache.dumping.forward import Collect
from bancache.dumping.pipeline import BackgroundWriter, Filled, fill
from bancache.errors import StoppedError, StorageError
from bancache.system.locks import CLAIMS, try_lock
from bancache.system.progress import Silent
from bancache.system.ranks import Rank
from bancache.system.signals import Interrupt


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, SMALL_SHARD)
    monkeypatch.setattr("bancache.dumping.pipeline._LOOK_EVERY_SECONDS", 0.01)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, SMALL_SHARD)
        yield tree(write(tmp_path_factory.mktemp("plain") / "a.zarr"))


def instant(shard: Shard, advance: Callable[[int], object]) -> Collect:
    """Targets of a shard that need no teacher."""
    advance(shard.stop - shard.start)
    return lambda: (fields(manifest(), shard), facts(shard))


def run(
    path: Path,
    forward: Any = instant,
    *,
    join: bool = True,
    rank: Rank | None = None,
    interrupt: Interrupt | None = None,
    claims: Callable[[Path], Claims] | None = None,
    threads: int = 1,
) -> Filled | None:
    """Fill a cache as a process would; None if it is complete."""
    with open_writer(path, manifest(), join=join) as writer:
        if writer is None:
            return None
        if claims is not None:
            writer.claims = claims(path)
        return fill(
            writer,
            forward,
            summarize,
            rank=rank or Rank(),
            progress=Silent(),
            interrupt=interrupt or Interrupt(),
            threads=threads,
        )


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_fills_the_same_cache_and_one_finishes_it(
    tmp_path: Path, expected: dict[str, bytes], workers: int
) -> None:
    path = tmp_path / "a.zarr"
    with ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(run, path, rank=Rank(rank, workers)) for rank in range(workers)]
        filled = [done for one in runs if (done := one.result(timeout=60)) is not None]
    assert [one.finished for one in filled].count(True) == 1
    assert sum(one.num_pairs for one in filled) >= 3 * 40
    assert tree(path) == expected


def test_a_recorded_shard_that_has_been_damaged_is_written_again_at_the_end(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Of a dump that goes on, no file is read before all shards are recorded; it waits for no other process."""
    path = write_some(tmp_path / "a.zarr", range(7))
    DAMAGES["flipped"](path / "q/c/1/0/0", path)
    begun: list[int] = []

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        begun.append(shard.index)
        return instant(shard, advance)

    filled = run(path, forward, join=False)
    assert begun == [7, 8, 3]
    assert filled is not None
    assert filled.finished
    assert tree(path) == expected


def test_each_begins_with_its_own_and_then_helps(tmp_path: Path) -> None:
    """Nine shards, the second of three: 1, 4, 7, and the rest from a third on, so that helpers spread."""
    begun: list[int] = []

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        begun.append(shard.index)
        return instant(shard, advance)

    run(tmp_path / "a.zarr", forward, rank=Rank(1, 3))
    assert begun == [1, 4, 7, 3, 5, 6, 8, 0, 2]


def test_the_teacher_runs_while_the_disk_is_busy_and_gets_one_shard_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write waits until the second shard is begun; the third is not begun before the write is done."""
    begun, written = [], []
    second = threading.Event()
    real = CacheWriter.write_shard

    def slow(self: CacheWriter, shard: Shard, *args: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert second.wait(30)
        real(self, shard, *args)
        written.append(shard.index)

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        begun.append(shard.index)
        assert len(begun) - len(written) <= 2
        if len(begun) == 2:
            second.set()
        return instant(shard, advance)

    monkeypatch.setattr(CacheWriter, "write_shard", slow)
    assert run(tmp_path / "a.zarr", forward, join=False) == Filled(120, finished=True)
    assert begun == written == list(range(9))


def test_three_threads_write_three_shards_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    """Each waits for two others; the teacher is at most one shard ahead of them."""
    together, begun, written = threading.Barrier(3), [], []
    real = CacheWriter.write_shard

    def slow(self: CacheWriter, shard: Shard, *args: Any) -> None:
        together.wait(30)
        real(self, shard, *args)
        written.append(shard.index)

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        begun.append(shard.index)
        assert len(begun) - len(written) <= 4
        return instant(shard, advance)

    monkeypatch.setattr(CacheWriter, "write_shard", slow)
    assert run(tmp_path / "a.zarr", forward, join=False, threads=3) == Filled(120, finished=True)
    assert tree(tmp_path / "a.zarr") == expected


def test_the_lock_is_held_until_the_last_thread_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no other process completes the cache while one of its shards is being written."""
    path, begun, end = tmp_path / "a.zarr", threading.Event(), threading.Event()
    real = CacheWriter._write

    def slow(self: CacheWriter, shard: Shard, *args: Any) -> None:
        if shard.index == 0:
            begun.set()
            assert end.wait(30)
        real(self, shard, *args)

    def is_free() -> bool:
        with (path / ".claims" / "lock").open("rb") as other:
            return try_lock(other.fileno(), fcntl.LOCK_EX)

    monkeypatch.setattr(CacheWriter, "_write", slow)
    with open_writer(path, manifest()) as writer, ThreadPoolExecutor(1) as pool:
        assert writer is not None

        def write_one(index: int) -> None:
            shard = writer.layout.shard(index)
            writer.write_shard(shard, fields(manifest(), shard), facts(shard))

        first = pool.submit(write_one, 0)
        assert begun.wait(30)
        write_one(1)
        assert not is_free()
        end.set()
        first.result(timeout=30)
        assert is_free()


def test_an_error_of_the_disk_comes_out_once_and_what_was_recorded_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    real, begun = CacheWriter.write_shard, []

    def full(self: CacheWriter, shard: Shard, *args: Any) -> None:
        if shard.index == 4:
            raise StorageError("here")
        real(self, shard, *args)

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        begun.append(shard.index)
        return instant(shard, advance)

    monkeypatch.setattr(CacheWriter, "write_shard", full)
    with pytest.raises(StorageError, match="here"):
        run(tmp_path / "a.zarr", forward)
    assert begun in ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5])
    monkeypatch.setattr(CacheWriter, "write_shard", real)
    assert not list((tmp_path / "a.zarr").glob(".claims/*.json")), "a process that leaves releases its claims"
    assert run(tmp_path / "a.zarr") == Filled(120 - (14 + 14 + 12 + 14), finished=True)
    assert tree(tmp_path / "a.zarr") == expected


@pytest.mark.parametrize("asked_at", [0, 3, 8])
def test_an_interrupt_stops_after_the_shard_under_way(
    tmp_path: Path, expected: dict[str, bytes], asked_at: int
) -> None:
    interrupt = Interrupt()

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        if shard.index == asked_at:
            interrupt.signal_number = signal.SIGTERM
        return instant(shard, advance)

    path = tmp_path / "a.zarr"
    with pytest.raises(StoppedError, match=f"{asked_at + 1} of 9") as caught:
        run(path, forward, interrupt=interrupt)
    assert caught.value.exit_code == 143
    assert len(list(path.glob(".regions/*.json"))) == asked_at + 1
    run(path)
    assert tree(path) == expected


def test_a_shard_that_hangs_elsewhere_is_done_again_after_a_lease(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """A second of the heir's clock passes with each look at it; the one that hangs then comes too late."""
    path = tmp_path / "a.zarr"
    now = iter(range(10**6))
    with open_writer(path, manifest(), join=True) as hanging:
        assert hanging is not None
        assert hanging.claims.take(2)
        heir = run(path, claims=lambda cache: Claims(cache, lease=60, clock=lambda: next(now)))
        assert heir == Filled(120, finished=True)
        assert next(now) > 60
        shard = hanging.layout.shard(2)
        hanging.write_shard(shard, fields(manifest(), shard), facts(shard))
    assert tree(path) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_that_build_on_others_come_after_them(
    tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Views 1 and 2 of a block need its view index 0 on disk, which may be in another's hands or on its own way there."""
    monkeypatch.setattr(
        "bancache.cache.layout.Layout.requires",
        lambda self, shard: self.shard(shard.block) if shard.view_index else None,
    )
    path = tmp_path / "a.zarr"

    def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
        if shard.view_index:
            assert (path / ".regions" / f"{shard.block:06d}.json").is_file()
        return instant(shard, advance)

    with ThreadPoolExecutor(workers) as pool:
        runs = [pool.submit(run, path, forward, rank=Rank(rank, workers)) for rank in range(workers)]
        assert any(one.result(timeout=60) for one in runs)
    assert tree(path) == expected


@pytest.mark.parametrize("seed", range(6))
def test_workers_that_die_and_come_back_in_any_number_leave_the_same_cache(
    tmp_path: Path, expected: dict[str, bytes], seed: int
) -> None:
    """Each dies at a random shard, or lives; a lease is a few looks."""
    chance = random.Random(seed)
    path = tmp_path / "a.zarr"

    def work(rank: int, count: int, fate: int) -> Filled | None:
        steps = iter(range(1000))

        def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
            if next(steps) == fate:
                raise Killed
            return instant(shard, advance)

        def claims(cache: Path) -> Claims:
            now = iter(range(10**6))
            return Claims(cache, lease=30, clock=lambda: next(now))

        try:
            return run(path, forward, rank=Rank(rank, count), claims=claims)
        except Killed:
            return None

    for _ in range(6):
        count = chance.randint(1, 3)
        fates = [chance.randint(0, 6) for _ in range(count)]
        with ThreadPoolExecutor(count) as pool:
            runs = [pool.submit(work, rank, count, fate) for rank, fate in enumerate(fates)]
            for one in runs:
                one.result(timeout=60)
    run(path)
    assert tree(path) == expected


def test_the_background_writer_does_one_thing_at_a_time_and_raises_its_error() -> None:
    running: list[int] = []
    done: list[int] = []

    def work(number: int) -> None:
        running.append(number)
        assert len(running) - len(done) == 1
        done.append(number)
        if number == 2:
            raise StorageError("full")

    def all_of_them() -> None:
        with BackgroundWriter() as background:
            for number in range(4):
                background.put(partial(work, number))

    with pytest.raises(StorageError, match="full"):
        all_of_them()
    assert done == [0, 1, 2]
    with BackgroundWriter() as background:
        assert not background.finish()
        background.put(lambda: None)
        assert background.finish()


def test_an_error_of_the_disk_replaces_the_interrupt() -> None:
    def fail() -> None:
        raise StorageError("full")

    def stop() -> None:
        with BackgroundWriter() as background:
            background.put(fail)
            raise StoppedError("stopped", signal_number=2)

    with pytest.raises(StorageError, match="full"):
        stop()


def test_a_shard_that_another_records_between_a_look_and_the_claim_is_not_done_again(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Its claim is given back at once."""
    path, begun = tmp_path / "a.zarr", list[int]()
    with (
        open_writer(path, manifest(), join=True) as writer,
        open_writer(path, manifest(), join=True) as other,
    ):
        assert isinstance(writer, CacheWriter)
        assert other is not None
        real = writer.claims.take

        def take(index: int) -> bool:
            assert list((path / CLAIMS).glob("*.json")) == []
            shard = other.layout.shard(index)
            other.write_shard(shard, fields(manifest(), shard), facts(shard))
            return real(index)

        def forward(shard: Shard, advance: Callable[[int], object]) -> Collect:
            begun.append(shard.index)
            return instant(shard, advance)

        writer.claims.take = take  # type: ignore[method-assign]
        done = fill(writer, forward, summarize, Rank(), Silent(), Interrupt())
    assert (done, begun) == (Filled(0, finished=True), [])
    assert tree(path) == expected
