"""Every kind of damage to every kind of file is found before a byte of it is believed, and named."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import pytest
from contracts.damage import DAMAGES
from contracts.small_cache import check_view, make_manifest

from bancache.cache.manifest_io import read_manifest
from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import verify_cache
from bancache.errors import CacheDamagedError

pytestmark = pytest.mark.usefixtures("small_shards")


def chunk(cache: Path, view_index: int, block: int, name: str) -> Path:
    return cache / name / "c" / str(view_index) / str(block) / ("0" if name == "q" else "")


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("name", ["q", "shift"])
def test_a_damaged_chunk_is_named_by_its_shard_and_other_views_are_read(
    sound: Path, tmp_path: Path, name: str, way: str
) -> None:
    """Every chunk of the cache in turn; the view that is read afterwards has no part in a swap."""
    for view_index, block in itertools.product(range(3), range(3)):
        cache = shutil.copytree(sound, tmp_path / f"{view_index}-{block}.zarr")
        DAMAGES[way](
            chunk(cache, view_index, block, name), chunk(cache, (view_index + 1) % 3, (block + 1) % 2, name)
        )
        first, last = [(0, 13), (14, 27), (28, 39)][block]
        shard = f"shard {3 * view_index + block} (view {view_index}, samples {first} to {last})"
        with pytest.raises(
            CacheDamagedError, match=f"{re.escape(cache.name)}.* {re.escape(shard)}"
        ) as caught:
            open_cache(cache).read_view(view_index)
        assert f"bancache repair {cache}" in caught.value.hint
        assert caught.value.exit_code == 3
        check_view(cache, (view_index + 2) % 3)


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json", "shift/zarr.json"])
def test_a_damaged_description_is_named(cache: Path, file: str, way: str) -> None:
    """bancache does not read them, but they would mislead every other program."""
    other = "shift/zarr.json" if file == "q/zarr.json" else "q/zarr.json"
    DAMAGES[way](cache / file, cache / other)
    named = file if way != "swapped" else r"(q/|shift/)?zarr\.json"
    for view_index in range(3):
        with pytest.raises(CacheDamagedError, match=rf"a\.zarr: {named} ") as caught:
            open_cache(cache).read_view(view_index)
        assert f"bancache repair {cache}" in caught.value.hint


@pytest.mark.parametrize("way", DAMAGES)
def test_a_damaged_manifest_is_refused_when_it_is_opened(cache: Path, way: str) -> None:
    DAMAGES[way](cache / "manifest.json", cache / "zarr.json")
    with pytest.raises(CacheDamagedError, match=r"manifest\.json ") as caught:
        open_cache(cache)
    assert caught.value.hint


def test_a_manifest_is_refused_with_any_bit_of_any_byte_flipped(cache: Path) -> None:
    """Every seventh byte, a bit that moves on; what is still JSON has another digest."""
    file = cache / "manifest.json"
    content = file.read_bytes()
    for number, position in enumerate(range(0, len(content) - 1, 7)):
        changed = bytearray(content)
        changed[position] ^= 1 << number % 8
        file.write_bytes(changed)
        with pytest.raises(CacheDamagedError):
            read_manifest(cache)
    file.write_bytes(content)
    read_manifest(cache)


def test_two_damaged_shards_of_a_view_leave_nothing_hanging(cache: Path) -> None:
    for block in range(3):
        chunk(cache, 1, block, "q").unlink()
    for _ in range(3):
        with pytest.raises(CacheDamagedError, match="view 1"):
            open_cache(cache).read_view(1)


def test_a_folder_reached_by_a_link_is_not_the_caches_own(cache: Path, tmp_path: Path) -> None:
    (cache / "q" / "c" / "1").rename(tmp_path / "aside")
    (cache / "q" / "c" / "1").symlink_to(tmp_path / "aside")
    with pytest.raises(CacheDamagedError, match=r"shard \d \(view 1, "):
        open_cache(cache).read_view(1)
    check_view(cache, 0)


def test_a_cache_may_itself_be_reached_by_a_link(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(cache)
    check_view(tmp_path / "link.zarr", 2)


def test_a_file_that_the_disk_no_longer_gives_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_cache(cache)
    read = Path.read_bytes

    def failing(self: Path) -> bytes:
        if self.name == "0":
            raise OSError(5, "Input/output error")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(CacheDamagedError, match=r"view 0, .*Input/output error"):
        opened.read_view(0)


def test_verify_finds_what_reading_finds_and_more(cache: Path) -> None:
    assert verify_cache(cache) == []
    DAMAGES["flipped"](chunk(cache, 1, 2, "shift"), cache)
    DAMAGES["deleted"](cache / "zarr.json", cache)
    findings = verify_cache(cache)
    assert [(found.file, found.shard and found.shard.index) for found in findings] == [
        ("shift/c/1/2", 5),
        ("zarr.json", None),
    ]
    assert all(found.problem in str(found) for found in findings)
    assert len({found.problem for found in findings}) == 2


def test_a_link_in_the_way_of_a_repair_is_removed_and_not_followed(cache: Path, tmp_path: Path) -> None:
    (cache / "q").rename(tmp_path / "aside")
    (cache / "q").symlink_to(tmp_path / "aside")
    (tmp_path / "aside" / "zarr.json").write_text("precious")
    with open_repairer(cache) as repairer:
        repairer.restore_descriptions()
    assert (tmp_path / "aside" / "zarr.json").read_text() == "precious"
    assert not (cache / "q").is_symlink()
    lost = {key for key in open_cache(cache).digests if key.startswith("q/")} - {"q/zarr.json"}
    assert {finding.file for finding in verify_cache(cache)} == lost


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.write_text("x"),
        lambda path: path.mkdir(),
        lambda path: (path / "manifest.json").mkdir(parents=True),
    ],
    ids=["nothing", "a file", "an empty folder", "a folder for a manifest"],
)
def test_what_is_not_a_cache_is_refused(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "a.zarr")
    with pytest.raises(CacheDamagedError, match=r"manifest\.json") as caught:
        open_cache(tmp_path / "a.zarr")
    assert "`bancache dump`" in caught.value.hint


def test_the_manifest_of_an_intact_cache_reads_back(cache: Path) -> None:
    assert open_cache(cache).manifest == make_manifest()
