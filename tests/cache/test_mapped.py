"""A map is checked once, then trusted as long as it is the same file; every damage of a file is still found."""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from contracts.damage import DAMAGES
from contracts.hostile import cheaply, list_as, reseal
from contracts.small_cache import Q, check_view, expected_view, make_manifest, write
from numpy.typing import NDArray

from bancache.cache import Layout
from bancache.cache.digests import digest_of
from bancache.cache.reader import Cache, open_cache
from bancache.encodings.fields import FieldSpec
from bancache.errors import CacheDamagedError

MANIFEST = make_manifest(profile="mmap")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """One shard a view."""
    return write(tmp_path / "a.zarr", MANIFEST)


def maps(values: NDArray[Any]) -> bool:
    """Whether an array's memory is a map of a file."""
    base: Any = values
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else base.base
    return base is not None


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each file that was read to be checked."""
    counted: list[int] = []
    digest = hashlib.file_digest

    def count(*args: Any) -> Any:
        counted.append(1)
        return digest(*args)

    monkeypatch.setattr(hashlib, "file_digest", count)
    return counted


def read_all(cache: Cache) -> None:
    for view_index in range(3):
        cache.read_view(view_index)


def test_a_view_of_one_file_is_a_map_and_no_copy(cache: Path) -> None:
    encoded = open_cache(cache).read_view(1)
    assert all(maps(values) for values in encoded.values())
    assert encoded["q"].tobytes() == expected_view(MANIFEST, 1)["q"].tobytes()


@pytest.mark.usefixtures("small_shards")
def test_a_view_of_several_files_is_put_together(tmp_path: Path) -> None:
    path = write(tmp_path / "b.zarr", MANIFEST)
    assert (path / "q/c/2/2/0").stat().st_size == 14 * 10 + 4  # the last one too, filled up
    for view_index in range(3):
        check_view(path, view_index, MANIFEST)


def test_a_chunk_is_its_bytes_and_their_checksum(cache: Path) -> None:
    content = (cache / "q" / "c" / "2" / "0" / "0").read_bytes()
    assert content[:-4] == expected_view(MANIFEST, 2)["q"].tobytes()
    assert int.from_bytes(content[-4:], "little") == google_crc32c.value(content[:-4])


def test_the_size_of_mapped_shards_is_frozen() -> None:
    """64 MiB: a view of CIFAR-100 is one shard of 5 MB, one of ImageNet twenty of 64 MB."""
    for samples, classes, block in ((50_000, 100, 50_000), (1_281_167, 1000, 64_059)):
        field = FieldSpec("q", "uint8", (classes,), ("class",))
        assert Layout(make_manifest(samples=samples, fields=(field,), profile="mmap")).block == block


def test_writing_to_a_view_reaches_neither_the_file_nor_others(cache: Path) -> None:
    opened = open_cache(cache)
    opened.read_view(0)["q"][:] = 7
    check_view(cache, 0, MANIFEST)
    assert opened.read_view(0)["q"].tobytes() == expected_view(MANIFEST, 0)["q"].tobytes()


def test_each_file_is_checked_once(cache: Path, hashed: list[int]) -> None:
    """Two arrays of three views, two of which are read twice; and once more for another reader."""
    opened = open_cache(cache)
    read_all(opened)
    read_all(opened)
    # Descriptions are counted, too: the group's and two arrays'.
    assert len(hashed) == 6 + 3
    read_all(open_cache(cache))
    assert len(hashed) == 2 * (6 + 3)


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("trusted", [False, True], ids=["before", "after it was trusted"])
def test_damage_is_found_before_and_after_a_file_was_trusted(cache: Path, way: str, trusted: bool) -> None:
    opened = open_cache(cache)
    if trusted:
        read_all(opened)
    DAMAGES[way](cache / "q/c/1/0/0", cache / "q/c/2/0/0")
    with pytest.raises(CacheDamagedError, match=r"a\.zarr: shard 1 \(view 1, samples 0 to 39\)"):
        opened.read_view(1)
    assert opened.read_view(0)["q"].tobytes() == expected_view(MANIFEST, 0)["q"].tobytes()


@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json"])
def test_a_damaged_description_is_named(cache: Path, file: str) -> None:
    DAMAGES["flipped"](cache / file, cache)
    with pytest.raises(CacheDamagedError, match=rf"a\.zarr: {file} "):
        open_cache(cache).read_view(0)


def test_a_file_touched_but_not_changed_is_checked_again_and_good(cache: Path, hashed: list[int]) -> None:
    opened = open_cache(cache)
    opened.read_view(0)
    before = len(hashed)
    os.utime(cache / "q/c/0/0/0", ns=(1, 1))
    opened.read_view(0)
    assert len(hashed) == before + 1


@pytest.mark.parametrize("size", [1, 403, 405, 1 << 26, 1 << 62])
def test_a_file_of_another_size_is_refused_when_the_cache_is_opened(cache: Path, size: int) -> None:
    """Whatever digest it has: only files of a shard's size are mapped."""
    reseal(cache, list_as("q/c/0/0/0", [size, "0" * 64]))
    with (
        cheaply(),
        pytest.raises(CacheDamagedError, match=rf"shard 0 .*{size}|manifest\.json"),
    ):
        open_cache(cache)


def test_a_file_of_the_right_size_and_digest_is_read_as_it_is(cache: Path) -> None:
    """Mapped bytes cannot unfold or point anywhere: whatever they are, they are numbers."""
    content = b"\xff" * 404
    (cache / "q/c/0/0/0").write_bytes(content)
    reseal(cache, list_as("q/c/0/0/0", list(digest_of(content))))
    assert (open_cache(cache).read_view(0)["q"] == 255).all()


def test_more_views_than_a_process_has_descriptors_are_read(tmp_path: Path) -> None:
    """Each mapping holds one for as long as its array lives."""
    import resource

    manifest = make_manifest(samples=2, num_views=80, fields=(Q,), profile="mmap")
    opened = open_cache(write(tmp_path / "b.zarr", manifest))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, before[1]))
    try:
        for view_index in itertools.chain(range(80), range(80)):
            assert opened.read_view(view_index)["q"].shape == (2, 10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
