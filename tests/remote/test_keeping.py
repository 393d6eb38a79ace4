"""Of a cache in an object store, files are kept on this machine up to a bound, and trusted only as their digests say."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import obstore
import pytest
from contracts.calling import refuse, succeed
from contracts.object_store import FaultyWay
from contracts.small_cache import SHARD_BYTES, make_manifest, write
from contracts.tiny import dump_tiny

from bancache.cache.digests import digest_of
from bancache.cache.kept_files import KeptFiles
from bancache.cache.reader import Cache, open_cache
from bancache.errors import UsageError
from bancache.loader.open import open_loader
from bancache.remote.push import push
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.bucket import Bucket
from bancache.system.files import bytes_below


@pytest.fixture(autouse=True)
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files are kept; a view has three shards."""
    monkeypatch.setattr(SHARD_BYTES, 200)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "bancache" / "targets"


@pytest.fixture
def there(tmp_path: Path, address: str) -> str:
    """The address of a complete cache."""
    push(write(tmp_path / "small.zarr"), Bucket(address))
    return address


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the chunks that are fetched."""
    keys, real = [], obstore.get

    def get(store: object, key: str) -> object:
        if "/c/" in key:
            keys.append(key)
        return real(store, key)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "get", get)
    return keys


def read(cache: Cache) -> list[bytes]:
    return [
        view[name].tobytes()
        for view in map(cache.read_view, range(cache.manifest.num_views))
        for name in view
    ]


def chunk_bytes(cache: Cache) -> int:
    return sum(digest.size for key, digest in cache.digests.items() if "/c/" in key)


def test_every_file_is_fetched_once_if_there_is_room(there: str, fetched: list[str], tmp_path: Path) -> None:
    expected = read(open_cache(tmp_path / "small.zarr"))
    for _ in range(2):
        cache = open_cache(there, keep_local=1e-3)
        assert read(cache) == expected
        assert read(pickle.loads(pickle.dumps(cache))) == expected
    assert len(fetched) == len(set(fetched)) == 2 * 3 * 3  # fields, views, shards
    assert read(open_cache(there)) == expected  # nothing is kept, nor read there, unless asked for
    assert len(fetched) == 2 * 2 * 3 * 3


def test_no_more_is_kept_than_asked_for(there: str, fetched: list[str], top: Path) -> None:
    """Whole views come first, so some epochs need no request; a smaller bound removes the rest."""
    whole = chunk_bytes(open_cache(there))
    sizes = []
    for share in (0.8, 0.4):
        limit = int(whole * share)
        for _ in range(2):
            fetched.clear()
            read(open_cache(there, keep_local=limit / 1e9))
        sizes.append(bytes_below(top))
        assert limit / 2 < sizes[-1] <= limit
        assert fetched
        assert not any(key.split("/")[2] == "0" for key in fetched)
    assert sizes[0] > sizes[1]


def test_files_that_fill_the_bound_exactly_are_kept() -> None:
    contents = {"q/c/0/0/0": b"abc", "q/c/1/0/0": b"de"}
    files = {key: digest_of(content) for key, content in contents.items()}
    for limit, whole in ((5, True), (4, False)):
        kept = KeptFiles("a" * 64, files, limit)
        for key, content in contents.items():
            kept.put(key, content)
        assert kept.get("q/c/0/0/0", files["q/c/0/0/0"]) == b"abc"
        assert (kept.get("q/c/1/0/0", files["q/c/1/0/0"]) == b"de") is whole


def test_a_kept_file_that_changed_is_fetched_again(there: str, fetched: list[str], top: Path) -> None:
    expected = read(open_cache(there, keep_local=1e-3))
    kept = sorted(file for file in top.rglob("*") if file.is_file())
    content = kept[0].read_bytes()
    for spoiled in (content[:-1], content + b"\0", bytes([content[0] ^ 1]) + content[1:], b""):
        kept[0].write_bytes(spoiled)
        fetched.clear()
        assert read(open_cache(there, keep_local=1e-3)) == expected
        assert (len(fetched), kept[0].read_bytes()) == (1, content)
    kept[1].unlink()
    kept[1].mkdir()  # it cannot be kept there again
    fetched.clear()
    assert read(open_cache(there, keep_local=1e-3)) == expected
    assert len(fetched) == 1


def test_the_cache_that_was_opened_longest_ago_makes_room(tmp_path: Path, address: str, top: Path) -> None:
    addresses, digests = [], []
    for number in range(3):
        here = write(tmp_path / f"{number}.zarr", make_manifest(teacher={"generation": number}))
        push(here, Bucket(f"{address}/{number}"))
        addresses.append(f"{address}/{number}")
        digests.append(open_cache(here).digest)
    size = chunk_bytes(open_cache(addresses[0]))
    for number in (0, 1, 0, 2):
        read(open_cache(addresses[number], keep_local=2.2 * size / 1e9))
    assert {folder.name for folder in top.iterdir()} == {digests[0], digests[2]}
    (top / ("0" * 64)).symlink_to(tmp_path / "gone")  # as a folder that another process removes meanwhile
    stranger = top / "mine"
    stranger.mkdir()
    (stranger / "letter").write_text("kept")
    read(open_cache(addresses[1], keep_local=1.1 * size / 1e9))
    assert {folder.name for folder in top.iterdir() if folder.exists()} == {digests[1], "mine"}


def test_a_full_disk_keeps_nothing_and_stops_nothing(
    there: str, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, cache = read(open_cache(there)), open_cache(there, keep_local=1e-3)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert read(cache) == expected
    assert bytes_below(top) == 0


def test_what_the_disk_has_no_room_for_is_refused(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bancache.cache.kept_files.free_bytes", lambda place: 100)
    argv = ["train-student", "--cache", there, "--keep-local"]
    refuse(2, ("GB are free",), *argv, "1", hint="--keep-local")
    for amount in ("-1", "nan", "inf"):
        refuse(2, amount, *argv, amount, hint="--keep-local")


def test_a_folder_keeps_nothing(tmp_path: Path) -> None:
    here = write(tmp_path / "small.zarr")
    with pytest.raises(UsageError) as refused:
        open_cache(here, keep_local=1)
    assert str(here) in str(refused.value)


def test_students_of_what_is_kept_need_no_store(
    tmp_path: Path, teacher_path: Path, spec: DataSpec, data: ImageSet, address: str, way: FaultyWay,
    fetched: list[str],
) -> None:  # fmt: skip
    """The second fetches the manifest alone, and is the same as one of the folder; loaders take an open cache."""
    dump_tiny(teacher_path, spec, data, tmp_path / "gen0.zarr")
    push(tmp_path / "gen0.zarr", Bucket(address))
    student: list[str | Path] = ["train-student", "--epochs", "3", "--batch-size", "16", "-q", "--cache"]
    expected = succeed(*student, tmp_path / "gen0.zarr", "--out", tmp_path / "0.pt")["weights"]
    for number in (1, 2):
        kept: list[str | Path] = [address, "--keep-local", "0.01", "--out", tmp_path / f"{number}.pt"]
        assert succeed(*student, *kept)["weights"] == expected
    assert len(fetched) == len(set(fetched)) > 0
    fetched.clear()
    loader = open_loader(open_cache(address, keep_local=0.01), batch_size=32, data=spec.source)
    assert len(list(loader.epoch(1))) == len(loader)
    assert not fetched
