"""Every kind of damage to every kind of file is found before a byte of it is believed, and named."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import pytest
from contracts.damage import DAMAGES
from contracts.small_cache import check_view, manifest

from bancache.cache.manifest_io import read_manifest
from bancache.cache.reader import open_cache
from bancache.cache.repairer import open_repairer
from bancache.cache.verify import verify_cache
from bancache.errors import CacheDamagedError

pytestmark = pytest.mark.usefixtures("small_shards")

PROBLEMS = {
    "flipped": "its sha256 is not the one written",
    "truncated": r"it has [\d,]+ bytes instead of",
    "emptied": "it has 0 bytes instead of",
    "deleted": "it is missing",
    "appended to": r"it has [\d,]+ bytes instead of",
    "swapped": r"(it has [\d,]+ bytes instead of|its sha256 is not the one written)",
    "a link": "it is reached by a link",
    "a folder": "it is not a plain file",
}


def chunk(cache: Path, view_index: int, block: int, name: str) -> Path:
    return cache / name / "c" / str(view_index) / str(block) / ("0" if name == "q" else "")


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("name", ["q", "shift"])
def test_a_damaged_chunk_is_named_by_its_shard_and_other_views_are_read(
    sound: Path, tmp_path: Path, name: str, way: str
) -> None:
    """Every chunk of the cache in turn; the view index that is read afterwards has no part in a swap."""
    for view_index, block in itertools.product(range(3), range(3)):
        cache = shutil.copytree(sound, tmp_path / f"{view_index}-{block}.zarr")
        DAMAGES[way](
            chunk(cache, view_index, block, name), chunk(cache, (view_index + 1) % 3, (block + 1) % 2, name)
        )
        first, last = [(0, 13), (14, 27), (28, 39)][block]
        shard = f"shard {3 * view_index + block} (view {view_index}, samples {first} to {last})"
        with pytest.raises(CacheDamagedError) as caught:
            open_cache(cache).read_view(view_index)
        named = rf"{re.escape(cache.name)}: {re.escape(shard)} is damaged: {PROBLEMS[way]}"
        assert re.match(named, str(caught.value)), str(caught.value)
        assert caught.value.hint == f"bancache repair {cache} makes it anew"
        assert caught.value.exit_code == 3
        check_view(cache, (view_index + 2) % 3)


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("file", ["zarr.json", "q/zarr.json", "shift/zarr.json"])
def test_a_damaged_description_is_named(cache: Path, file: str, way: str) -> None:
    """Nothing of ours reads them, but every other program would be misled."""
    other = "shift/zarr.json" if file == "q/zarr.json" else "q/zarr.json"
    DAMAGES[way](cache / file, cache / other)
    named = file if way != "swapped" else r"(q/|shift/)?zarr\.json"
    for view_index in range(3):
        with pytest.raises(
            CacheDamagedError, match=rf"^a\.zarr: {named} is damaged: {PROBLEMS[way]}"
        ) as caught:
            open_cache(cache).read_view(view_index)
        assert caught.value.hint == f"bancache repair {cache} makes it anew"


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
    """Zarr reads them at the same time; the second error must not appear as a warning later."""
    for block in range(3):
        chunk(cache, 1, block, "q").unlink()
    for _ in range(3):
        with pytest.raises(CacheDamagedError, match="view 1"):
            open_cache(cache).read_view(1)


def test_a_folder_reached_by_a_link_is_not_the_caches_own(cache: Path, tmp_path: Path) -> None:
    (cache / "q" / "c" / "1").rename(tmp_path / "aside")
    (cache / "q" / "c" / "1").symlink_to(tmp_path / "aside")
    with pytest.raises(CacheDamagedError, match=r"shard \d \(view 1, .* it is reached by a link"):
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
    with pytest.raises(
        CacheDamagedError, match=r"view 0, .* is damaged: it cannot be read: Input/output error"
    ):
        opened.read_view(0)


def test_verify_finds_what_reading_finds_and_more(cache: Path) -> None:
    assert verify_cache(cache) == []
    DAMAGES["flipped"](chunk(cache, 1, 2, "shift"), cache)
    DAMAGES["deleted"](cache / "zarr.json", cache)
    (cache / "q" / "c" / "7").symlink_to(cache / "q")
    assert [str(finding) for finding in verify_cache(cache)] == [
        "shard 5 (view 1, samples 28 to 39): its sha256 is not the one written",
        "zarr.json: it is missing",
        "q/c/7: it does not belong to the cache",
    ]


def test_a_link_in_the_way_of_a_repair_is_removed_and_not_followed(cache: Path, tmp_path: Path) -> None:
    (cache / "q").rename(tmp_path / "aside")
    (cache / "q").symlink_to(tmp_path / "aside")
    (tmp_path / "aside" / "zarr.json").write_text("precious")
    with open_repairer(cache) as repairer:
        repairer.restore_descriptions()
        repairer.remove(["q"])
    assert (tmp_path / "aside" / "zarr.json").read_text() == "precious"
    assert not (cache / "q").is_symlink()
    assert {finding.problem for finding in verify_cache(cache)} == {"it is missing"}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "manifest.json is missing"),
        (lambda path: path.write_text("x"), "manifest.json is missing"),
        (lambda path: path.mkdir(), "manifest.json is missing"),
        (lambda path: (path / "manifest.json").mkdir(parents=True), "manifest.json is not a plain file"),
    ],
)
def test_what_is_not_a_cache_is_said_not_to_be_one(tmp_path: Path, make: object, said: str) -> None:
    assert callable(make)
    make(tmp_path / "a.zarr")
    with pytest.raises(CacheDamagedError, match=said) as caught:
        open_cache(tmp_path / "a.zarr")
    assert caught.value.hint == "name a folder made by `bancache dump`"


def test_the_promise_of_a_sound_cache_reads_back(cache: Path) -> None:
    assert open_cache(cache).manifest == manifest()
