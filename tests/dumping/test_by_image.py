"""A dump of pictures that are not in memory: all views of a block of samples, each picture read once, the same bytes."""

from __future__ import annotations

from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from contracts.small_cache import SHARD_BYTES
from contracts.stored import reading_threads, stored
from contracts.tiny import CPU, THREE_SHARDS, After, dump_tiny, settings
from sources.tiny import Heard

from bancache.cache import Layout
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.dumping import dump
from bancache.dumping.pipeline import Schedule
from bancache.errors import DataError, StoppedError
from bancache.models.teacher import Teacher
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.ranks import Rank
from bancache.views import ViewSpace

pytestmark = pytest.mark.usefixtures("small_shards")
VIEWS = 3
PHOTOGRAPHS: dict[str, Any] = {"space": ViewSpace.parse("rrc-flip", seed=5), "num_views": VIEWS}


@pytest.fixture(scope="module")
def wanted(
    teacher: Teacher, data: ImageSet, spec: DataSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int]:
    """The digest of a cache that was dumped from memory, and the samples of a shard."""
    out = tmp_path_factory.mktemp("wanted") / "a.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, THREE_SHARDS)
        return run(teacher, data, spec, out, **PHOTOGRAPHS)[0], Layout(open_cache(out).manifest).block


def run(teacher: Teacher, data: ImageSet, spec: DataSpec, out: Path, **changes: Any) -> tuple[str, Heard]:
    """Return the digest of a dump, and what it said."""
    heard, interrupt, rank = Heard(), changes.pop("interrupt", None), changes.pop("rank", None)
    joined = {} if rank is None else {"rank": rank, "join": True}
    asked = settings(teacher, **changes)
    result = dump(teacher, data, spec, out, asked, device=CPU, progress=heard, interrupt=interrupt, **joined)
    return result.cache.digest, heard


@pytest.mark.parametrize(("profile", "num_views"), [("default", 20), ("compact", 3), ("mmap", 2)])
def test_each_picture_is_read_once_for_all_views_and_the_bytes_are_those_from_memory(
    teacher: Teacher, data: ImageSet, spec: DataSpec, tmp_path: Path, profile: str, num_views: int
) -> None:
    streamed, counted = stored(data)
    changes = {**PHOTOGRAPHS, "profile": profile, "num_views": num_views}
    wanted, _ = run(teacher, data, spec, tmp_path / "a.zarr", **changes)
    found, heard = run(teacher, streamed, spec, tmp_path / "b.zarr", **changes)
    assert found == wanted
    assert set(counted.reads) == set(range(len(data)))
    assert set(counted.reads.values()) == {1}
    assert heard.notes == []
    assert reading_threads() == []


def test_crops_and_mixed_views_too(teacher: Teacher, data: ImageSet, spec: DataSpec, tmp_path: Path) -> None:
    for name in ("crop1-flip", "rrc-flip-mixup0.8"):
        streamed, counted = stored(data)
        changes = {"space": ViewSpace.parse(name, seed=5), "num_views": 2}
        wanted, _ = run(teacher, data, spec, tmp_path / f"{name}-a.zarr", **changes)
        assert run(teacher, streamed, spec, tmp_path / f"{name}-b.zarr", **changes)[0] == wanted
    # Partners come from anywhere: one of each view, and the first batch is also that of the probe.
    assert sum(counted.reads.values()) <= len(data) * (1 + 2) + 2 * 32


def test_of_a_block_that_is_larger_than_memory_allows_the_first_pictures_are_kept_and_a_note_says_so(
    teacher: Teacher,
    data: ImageSet,
    spec: DataSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: tuple[str, int],
) -> None:
    digest, block = wanted
    monkeypatch.setattr("bancache.dumping.kept.free_on_host", lambda: 4 * (10 * 300 + 17))
    streamed, counted = stored(data)
    found, heard = run(teacher, streamed, spec, tmp_path / "b.zarr", **PHOTOGRAPHS)
    assert found == digest
    assert [(f"{block} pictures" in note, "10 fit" in note) for note in heard.notes] == [(True, True)]
    last = range(2 * block, len(data))
    assert [counted.reads[sample] for sample in last] == [1] * 10 + [VIEWS] * (len(last) - 10)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    _, heard = run(teacher, stored(data)[0], spec, tmp_path / "c.zarr", **PHOTOGRAPHS, shard_samples=50)
    assert "each 50 pictures that a shard holds, 5 fit" in heard.notes[0]


def test_a_dump_that_was_stopped_goes_on_and_several_processes_share_blocks(
    teacher: Teacher, data: ImageSet, spec: DataSpec, tmp_path: Path, wanted: tuple[str, int]
) -> None:
    digest, block = wanted
    streamed, counted = stored(data)
    with pytest.raises(StoppedError):
        run(teacher, streamed, spec, tmp_path / "b.zarr", **PHOTOGRAPHS, interrupt=After(VIEWS))
    assert max(counted.reads) < block
    assert run(teacher, streamed, spec, tmp_path / "b.zarr", **PHOTOGRAPHS)[0] == digest

    found: list[str] = []

    def join(rank: int) -> None:
        found.append(run(teacher, streamed, spec, tmp_path / "c.zarr", **PHOTOGRAPHS, rank=Rank(rank, 2))[0])

    threads = [Thread(target=join, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [digest] * 2


def test_blocks_are_tried_one_after_another_each_rank_its_own_first(
    teacher_path: Path, data: ImageSet, spec: DataSpec, tmp_path: Path
) -> None:
    made, _ = dump_tiny(teacher_path, spec, data, tmp_path / "a.zarr", num_views=3)
    with open_writer(tmp_path / "b.zarr", made.cache.manifest, join=True) as writer:
        assert writer is not None
        for rank, blocks in ((0, [0, 0, 0, 2, 2, 2, 1, 1, 1]), (1, [1, 1, 1, 2, 2, 2, 0, 0, 0])):
            schedule, order = Schedule(writer, Rank(rank, 2), by_image=True), []
            while shard := schedule.next():
                order.append((shard.block, shard.view_index))
                writer.claims.release(shard.index)
            assert [view for _, view in order] == [0, 1, 2] * 3
            assert sorted(block for block, _ in order) == sorted(blocks)
            assert [block for block, _ in order[: 3 * (2 - rank)]] == blocks[: 3 * (2 - rank)]


def test_a_picture_that_cannot_be_read_ends_the_dump_by_its_name(
    teacher: Teacher, data: ImageSet, spec: DataSpec, tmp_path: Path, wanted: tuple[str, int]
) -> None:
    streamed, counted = stored(data)
    counted.broken = 77
    with pytest.raises(DataError, match=r"sample 77 \(cat/77\.jpg\)"):
        run(teacher, streamed, spec, tmp_path / "a.zarr", **PHOTOGRAPHS)
    counted.broken = None
    assert run(teacher, streamed, spec, tmp_path / "a.zarr", **PHOTOGRAPHS)[0] == wanted[0]
