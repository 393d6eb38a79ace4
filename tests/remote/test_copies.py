"""What was pushed comes back byte for byte; what is there never claims more than it has; nothing else is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contracts.damage import DAMAGES
from contracts.killing import tree as every_file
from contracts.small_cache import (
    SHARD_BYTES,
    SMALL_SHARD,
    Q,
    facts,
    fields,
    make_manifest,
    write,
    write_some,
)

from bancache.cache.digests import digest_of
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, read_manifest, sign
from bancache.cache.opening import open_writer
from bancache.cache.reader import open_cache
from bancache.errors import (
    BancacheError,
    BusyError,
    CacheDamagedError,
    MismatchError,
    StoppedError,
    UsageError,
)
from bancache.remote.lease import Lease
from bancache.remote.pull import pull
from bancache.remote.push import push
from bancache.system.bucket import Bucket
from bancache.system.files import write_json
from bancache.system.locks import HOLDER, exclusive
from bancache.system.signals import Interrupt

DESCRIPTIONS = 3
PROFILES = ("default", "compact", "mmap")


def tree(path: Path) -> dict[str, bytes]:
    """Return the files of a cache, without claims."""
    return {key: content for key, content in every_file(path).items() if not key.startswith(".claims/")}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, SMALL_SHARD)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_cache_comes_back_byte_for_byte_and_is_sent_once(
    tmp_path: Path, address: str, profile: str
) -> None:
    cache, back = write(tmp_path / "gen0.zarr", make_manifest(profile=profile)), tmp_path / "back.zarr"
    files = len(tree(cache))
    first, second = push(cache, Bucket(address)), push(cache, Bucket(address))
    assert (first.complete, second.complete) == (True, True)
    assert (first.moved, second.moved, second.kept) == (files + 1, 0, files)  # the unfinished manifest, too
    first_pull, second_pull = pull(Bucket(address), back), pull(Bucket(address), back)
    assert (first_pull.moved, second_pull.moved, second_pull.kept) == (
        files - 1 - DESCRIPTIONS,  # zarr.json files follow from the manifest
        0,
        files - 1,
    )
    assert tree(back) == tree(cache)
    assert set(Bucket(address).listed()) == set(tree(cache))


@pytest.mark.parametrize("profile", PROFILES)
def test_an_unfinished_cache_goes_on_elsewhere(tmp_path: Path, address: str, profile: str) -> None:
    manifest = make_manifest(profile=profile)
    whole = write(tmp_path / "whole.zarr", manifest)
    here, there = (
        write_some(tmp_path / "here.zarr", [0, 1, 2][: 1 + 2 * (profile != "mmap")], manifest),
        tmp_path / "there.zarr",
    )
    assert not push(here, Bucket(address)).complete
    assert not pull(Bucket(address), there).complete
    with pytest.raises(CacheDamagedError, match="there"):
        open_cache(there)
    before = tree(there)
    assert tree(write(there, manifest)) == tree(whole)
    # On with the copy, from the second machine; its records go once it is complete.
    assert any(key.startswith(".regions/") for key in before)
    assert push(there, Bucket(address)).complete
    assert set(Bucket(address).listed()) == set(tree(whole))
    pull(Bucket(address), here)
    assert tree(here) == tree(whole)


class Dying(Bucket):
    """Dies before the n-th request that changes something."""

    class Death(BaseException):
        """Not an Exception: nothing catches it."""

    def __init__(self, address: str, calls: int) -> None:
        super().__init__(address)
        self._calls = calls

    def _count(self) -> None:
        self._calls -= 1
        if self._calls < 0:
            raise self.Death

    def put(self, key: str, content: bytes) -> None:
        self._count()
        super().put(key, content)

    def delete(self, keys: list[str]) -> None:
        self._count()
        super().delete(keys)


@pytest.mark.parametrize(("begun", "stride"), [("nothing", 1), ("unfinished", 1), ("another", 3)])
def test_killed_before_any_change_a_push_leaves_no_false_claim_and_goes_on(
    tmp_path: Path, address: str, begun: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.cache.files.AT_ONCE", 1)
    manifest = make_manifest(num_views=1, fields=(Q,))
    other = make_manifest(num_views=1, fields=(Q,), teacher={"fingerprint": "a" * 64})
    cache, deaths = write(tmp_path / "gen0.zarr", manifest), 0
    while True:
        at = f"{address}/{deaths}"
        if begun == "unfinished":
            push(write_some(tmp_path / f"{deaths}.zarr", [1], manifest), Bucket(at))
        elif begun == "another":
            push(write(tmp_path / f"{deaths}.zarr", other), Bucket(at))
        try:
            push(cache, Dying(at, deaths * stride), overwrite=begun == "another")
            break
        except Dying.Death:
            Bucket(at).delete([HOLDER])  # as its lease would end
        left = _left(Bucket(at), tmp_path / f"left-{deaths}.zarr")
        assert left in ("nothing", "unfinished") or tree(tmp_path / f"left-{deaths}.zarr") in (
            tree(cache),
            tree(tmp_path / f"{deaths}.zarr") if begun == "another" else None,
        )
        push(cache, Bucket(at), overwrite=begun == "another")
        assert set(Bucket(at).listed()) == set(tree(cache))
        deaths += 1
    assert deaths >= 3


def _left(bucket: Bucket, path: Path) -> str:
    """Return what a pull finds: nothing, an unfinished cache of which all is intact, or a complete one."""
    if bucket.head(MANIFEST) is None:
        return "nothing"
    return "complete" if pull(bucket, path).complete else "unfinished"


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "deleted", "appended to", "swapped"])
def test_damage_at_the_address_is_named_and_never_appears_here(
    tmp_path: Path, address: str, damage: str, complete: bool
) -> None:
    manifest = make_manifest(num_views=1)
    cache = (
        write(tmp_path / "gen0.zarr", manifest)
        if complete
        else write_some(tmp_path / "gen0.zarr", [0, 1], manifest)
    )
    bucket = Bucket(address)
    push(cache, bucket)
    harmed = tmp_path / "harmed"
    for key, content in tree(cache).items():
        (harmed / key).parent.mkdir(parents=True, exist_ok=True)
        (harmed / key).write_bytes(content)
    DAMAGES[damage](harmed / "q/c/0/1/0", harmed / "q/c/0/0/0")
    for key in ("q/c/0/1/0", "q/c/0/0/0"):
        if (harmed / key).exists():
            bucket.put(key, (harmed / key).read_bytes())
        else:
            bucket.delete([key])
    back = tmp_path / "back.zarr"
    named = "shard 0" if damage == "swapped" else "shard 1"
    with pytest.raises(CacheDamagedError, match=rf"{named} |q/c/0/1/0 .*\d+"):
        pull(bucket, back)
    assert all(content == tree(cache)[key] for key, content in tree(back).items() if key != MANIFEST)
    push(cache, bucket)
    pull(bucket, back)
    assert tree(back) == tree(cache)


def test_descriptions_are_those_that_the_manifest_knows(tmp_path: Path, address: str) -> None:
    """Another version of Zarr may write them otherwise; a complete cache is bound to its own."""
    cache = write(tmp_path / "gen0.zarr")
    other = b'{"of": "another version of Zarr"}'
    (cache / "q" / "zarr.json").write_bytes(other)
    with pytest.raises(CacheDamagedError, match=r"q/zarr\.json"):
        push(cache, Bucket(address))
    stored = read_manifest(cache)
    stored["files"]["q/zarr.json"] = list(digest_of(other))
    write_json(cache / MANIFEST, sign({key: value for key, value in stored.items() if key != "digest"}))
    push(cache, Bucket(address))
    pull(Bucket(address), tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(cache)


def test_damage_here_is_not_sent_and_can_be_pulled(tmp_path: Path, address: str) -> None:
    cache = write(tmp_path / "gen0.zarr")
    sound = tree(cache)
    push(cache, Bucket(address))
    (cache / "q/c/1/0/0").write_bytes(b"nonsense")
    with pytest.raises(CacheDamagedError, match="shard 3 "):
        push(cache, Bucket(address))
    assert pull(Bucket(address), cache).moved == 1
    assert tree(cache) == sound


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 200_000, ""),
        (b"{}", ""),
        (b"\xff\xfe", ""),
        (b'{"format_version": 1, "promise": {}, "complete": true, "digest": "0"}', ""),
        (b" " * 5000, ".* 5,000 .* 4,000 "),
    ],
)
def test_a_hostile_manifest_is_refused(
    tmp_path: Path, address: str, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if len(content) == 5000:
        monkeypatch.setattr("bancache.remote.pull.MANIFEST_LIMIT", 4000)
    Bucket(address).put(MANIFEST, content)
    with pytest.raises(CacheDamagedError, match=rf"manifest\.json{said}"):
        pull(Bucket(address), tmp_path / "gen0.zarr")
    assert not (tmp_path / "gen0.zarr").exists()


def test_records_that_are_nonsense_are_passed_over(tmp_path: Path, address: str) -> None:
    cache, bucket = write_some(tmp_path / "gen0.zarr", [0, 1]), Bucket(address)
    push(cache, bucket)
    for key, content in (
        ("000002.json", b"[" * 10_000),
        ("000003.json", b'{"region": 3}'),
        ("999999.json", b"{}"),
        ("../000004.json", b"{}"),
    ):
        bucket.put(f".regions/{key}" if ".." not in key else f".regions-{key[3:]}", content)
    pull(bucket, tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(cache)


def test_another_cache_is_neither_replaced_nor_mixed(tmp_path: Path, address: str) -> None:
    mine = write(tmp_path / "mine.zarr")
    theirs = write(tmp_path / "theirs.zarr", make_manifest(teacher={"fingerprint": "a" * 64}))
    push(mine, Bucket(address))
    attempts: list[Callable[[], object]] = [
        lambda: push(theirs, Bucket(address)),
        lambda: pull(Bucket(address), theirs),
    ]
    for attempt in attempts:
        with pytest.raises(
            MismatchError,
            match=r"teacher.*('e{12}'.*'a{12}'|'a{12}'.*'e{12}')",
        ):
            attempt()
    assert {key: entry.size for key, entry in Bucket(address).listed().items()} == {
        key: len(content) for key, content in tree(mine).items()
    }
    push(theirs, Bucket(address), overwrite=True)
    pull(Bucket(address), tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(theirs)


def test_a_cache_that_differs_in_what_may_differ_is_refused_all_the_same(
    tmp_path: Path, address: str
) -> None:
    cache, other = write(tmp_path / "gen0.zarr"), tmp_path / "other.zarr"
    push(cache, Bucket(address))
    manifest: Manifest = make_manifest(created_with={"bancache": "another"})
    with pytest.raises(MismatchError, match=r"'[0-9a-f]{12}'.*'[0-9a-f]{12}'"):
        push(write(other, manifest), Bucket(address))
    with pytest.raises(MismatchError, match=r"other\.zarr.*'[0-9a-f]{12}'.*'[0-9a-f]{12}'"):
        pull(Bucket(address), other)


@pytest.mark.parametrize("shard_samples", [None, 9])
def test_objects_that_belong_to_no_cache_are_left_alone(
    tmp_path: Path, address: str, shard_samples: int | None
) -> None:
    cache = write(tmp_path / "gen0.zarr", make_manifest(shard_samples=shard_samples))
    bucket = Bucket(address)
    bucket.put("q/letters", b"from somebody")
    for overwrite in (False, True):
        with pytest.raises(UsageError):
            push(cache, bucket, overwrite=overwrite)
    bucket.delete(["q/letters"])
    push(cache, bucket)
    bucket.put("letters", b"from somebody")
    push(write(tmp_path / "new.zarr", make_manifest(num_views=2)), bucket, overwrite=True)
    assert bucket.get("letters", 100) == b"from somebody"
    assert set(bucket.listed()) == {*tree(tmp_path / "new.zarr"), "letters"}


def test_a_complete_copy_is_not_made_unfinished(tmp_path: Path, address: str) -> None:
    push(write(tmp_path / "gen0.zarr"), Bucket(address))
    part = write_some(tmp_path / "part.zarr", [0])
    with pytest.raises(UsageError) as refused:
        push(part, Bucket(address))
    assert f"bancache pull {address}" in refused.value.hint
    assert pull(Bucket(address), part).complete
    assert tree(part) == tree(tmp_path / "gen0.zarr")


def test_a_complete_cache_is_not_mixed_with_an_unfinished_copy(tmp_path: Path, address: str) -> None:
    push(write_some(tmp_path / "part.zarr", [0]), Bucket(address))
    cache = write(tmp_path / "gen0.zarr")
    with pytest.raises(UsageError, match=r"gen0\.zarr") as refused:
        pull(Bucket(address), cache)
    assert "bancache push" in refused.value.hint


def test_an_unfinished_cache_is_not_pushed_while_it_is_written(tmp_path: Path, address: str) -> None:
    part = write_some(tmp_path / "part.zarr", [0])
    with exclusive(part), pytest.raises(BusyError, match=rf"part\.zarr .*\b{os.getpid()}\b"):
        push(part, Bucket(address))
    assert Bucket(address).listed() == {}


def test_a_record_of_absurd_sizes_is_passed_over(tmp_path: Path, address: str) -> None:
    cache, bucket = write_some(tmp_path / "gen0.zarr", [0, 1]), Bucket(address)
    push(cache, bucket)
    record = json.loads((cache / ".regions" / "000001.json").read_bytes())
    record["files"]["q/c/0/1/0"][0] = 1 << 50
    body = {key: value for key, value in record.items() if key != "digest"}
    bucket.put(".regions/000001.json", json.dumps(sign(body)).encode())
    pull(bucket, tmp_path / "back.zarr")
    assert [f.name for f in (tmp_path / "back.zarr" / ".regions").iterdir()] == ["000000.json"]


def test_a_folder_with_other_files_is_not_filled(tmp_path: Path, address: str) -> None:
    push(write(tmp_path / "gen0.zarr"), Bucket(address))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters").write_text("from somebody")
    with pytest.raises(UsageError):
        pull(Bucket(address), tmp_path / "mine")


class StopAfter(Interrupt):
    """Asks to stop after so many shards."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self._left = shards

    def check(self, progress: str, hint: str = "run the same command to go on") -> None:
        self._left -= 1
        if self._left <= 0:
            self.signal_number = 15
        super().check(progress, hint)


def test_a_stop_is_said_and_gone_on_from(tmp_path: Path, address: str) -> None:
    cache, back = write(tmp_path / "gen0.zarr"), tmp_path / "back.zarr"
    moves: list[Callable[[Any], object]] = [
        lambda interrupt: push(cache, Bucket(address), interrupt=interrupt),
        lambda interrupt: pull(Bucket(address), back, interrupt=interrupt),
    ]
    for move in moves:
        with pytest.raises(StoppedError, match=r"\b2 of \d+ ") as stopped:
            move(StopAfter(2))
        assert stopped.value.exit_code == 143
        move(None)
    assert tree(back) == tree(cache)


def test_a_stopped_pull_leaves_an_unfinished_cache(tmp_path: Path, address: str) -> None:
    push(write(tmp_path / "gen0.zarr"), Bucket(address))
    with pytest.raises(BancacheError):
        pull(Bucket(address), tmp_path / "back.zarr", interrupt=StopAfter(1))
    assert read_manifest(tmp_path / "back.zarr")["complete"] is False


def test_nothing_is_sent_without_the_lease(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have taken the address over, and have begun another cache."""

    def lost(_: Lease) -> None:
        raise BusyError("taken over")

    monkeypatch.setattr(Lease, "require", lost)
    with pytest.raises(BusyError):
        push(write(tmp_path / "gen0.zarr"), Bucket(address))
    assert Bucket(address).listed() == {}


def test_killed_while_it_sends_a_shard_anew_a_push_leaves_no_record_of_its_old_files(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard was lost here and written again with other bits."""
    monkeypatch.setattr("bancache.cache.files.AT_ONCE", 1)
    manifest, now = make_manifest(num_views=1, fields=(Q,)), tmp_path / "now.zarr"
    before, deaths = write_some(tmp_path / "before.zarr", [1], manifest), 0
    with open_writer(now, manifest) as writer:
        assert writer is not None
        shard = writer.layout.shard(1)
        writer.write_shard(shard, {"q": fields(manifest, shard)["q"] + 1}, facts(shard))
    while True:
        at = f"{address}/{deaths}"
        push(before, Bucket(at))
        try:
            push(now, Dying(at, deaths))
            break
        except Dying.Death:
            Bucket(at).delete([HOLDER])  # as its lease would end
        assert _left(Bucket(at), tmp_path / f"left-{deaths}.zarr") == "unfinished"
        deaths += 1
    assert deaths >= 3
    pull(Bucket(at), tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(now)
