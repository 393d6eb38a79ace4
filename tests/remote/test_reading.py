"""A cache is read where it lies: students, info and verify take an address as they take a folder, and get the same."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import obstore
import pytest
from contracts.calling import call, refuse, succeed
from contracts.object_store import BUCKET, FAULTS, FaultyWay
from contracts.small_cache import MAPPED_BYTES, SHARD_BYTES, expected_view, make_manifest, write, write_some
from contracts.stopping import StopAfter
from contracts.tiny import dump_tiny

from bancache.cache.info import describe
from bancache.cache.reader import Cache, open_cache
from bancache.cache.verify import verify_cache
from bancache.errors import CacheDamagedError, MismatchError, StorageError, UsageError
from bancache.loader.dataset import ViewDataset
from bancache.loader.open import open_loader
from bancache.models.checkpoint import load_checkpoint
from bancache.remote.push import push
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system import bucket
from bancache.system.bucket import Bucket, Patience
from bancache.system.read_ahead import in_threads

CHUNK = "q/c/1/1/0"  # of shard 5, which is the second of three in view 1


@pytest.fixture(scope="module", autouse=True)
def _several_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHARD_BYTES, 200)
        patch.setattr(MAPPED_BYTES, 200)
        yield


@pytest.fixture
def there(tmp_path: Path, address: str) -> str:
    """The address of a complete cache."""
    push(write(tmp_path / "small.zarr"), Bucket(address))
    return address


@pytest.fixture(scope="module")
def dumped(
    tmp_path_factory: pytest.TempPathFactory,
    teacher_path: Path,
    spec: DataSpec,
    data: ImageSet,
    _several_shards: None,
) -> Path:
    """A cache that students can be trained from."""
    out = tmp_path_factory.mktemp("dumped") / "gen0.zarr"
    dump_tiny(teacher_path, spec, data, out)
    return out


def require_same_views(cache: Cache) -> None:
    for view_index in (1, 0, 2):
        expected = expected_view(cache.manifest, view_index)
        found = cache.read_view(view_index)
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            assert found[name].tobytes() == values.tobytes()
            found[name][:] = 0  # writing to it changes nothing: the next view is still right


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that are fetched."""
    keys, real = [], obstore.get

    def get(store: object, key: str) -> object:
        keys.append(key)
        return real(store, key)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "get", get)
    return keys


@pytest.mark.parametrize("profile", ["default", "compact", "mmap"])
def test_views_at_an_address_are_those_in_the_folder(tmp_path: Path, address: str, profile: str) -> None:
    here = write(tmp_path / "small.zarr", make_manifest(profile=profile))
    push(here, Bucket(address))
    cache, local = open_cache(address), open_cache(here)
    require_same_views(cache)
    require_same_views(pickle.loads(pickle.dumps(cache)))
    assert (cache.digest, cache.bytes, cache.summary) == (local.digest, local.bytes, local.summary)
    assert str(cache.path) == address
    assert not cache.mapped  # so what is kept of it is kept in memory


def test_a_student_of_an_address_is_the_student_of_the_folder(
    tmp_path: Path, dumped: Path, address: str
) -> None:
    """Stopped with targets of the folder it goes on with those at the address, and the other way round."""
    push(dumped, Bucket(address))
    student: list[str | Path] = ["train-student", "--epochs", "2", "--batch-size", "16", "-q"]
    whole = succeed(*student, "--cache", dumped, "--out", tmp_path / "whole.pt")["weights"]
    ways: list[tuple[str | Path, str | Path]] = [(dumped, address), (address, dumped)]
    for number, (first, second) in enumerate(ways):
        out = tmp_path / f"{number}.pt"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bancache.system.signals.interruptible", lambda: nullcontext(StopAfter(4)))
            assert call(*student, "--cache", first, "--out", out).code == 143
        assert succeed(*student, "--cache", second, "--out", out)["weights"] == whole
        assert load_checkpoint(out).header["cache"] == open_cache(dumped).digest


def test_the_next_view_is_fetched_while_one_is_in_use(
    dumped: Path, address: str, asked: list[str], spec: DataSpec
) -> None:
    push(dumped, Bucket(address))
    asked.clear()
    loader = open_loader(address, batch_size=32, placement="disk", data=spec.source)

    def views() -> set[str]:
        return {key.split("/")[2] for key in asked if "/c/" in key}

    epochs = iter(range(3))
    for _ in loader.epoch(next(epochs)):
        assert views() <= {"0", "1"}
    for _ in loader.epoch(next(epochs)):
        assert {"0", "1"} <= views() <= {"0", "1", "2"}
    assert len(asked) == len(set(asked))


def test_a_dataset_of_an_address_has_the_items_of_the_folder(
    dumped: Path, address: str, spec: DataSpec
) -> None:
    push(dumped, Bucket(address))
    here, there = (ViewDataset(place, data=spec.source) for place in (dumped, address))
    there = pickle.loads(pickle.dumps(there))  # as for a spawned worker
    for epoch in (0, 1):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        assert (here[[3, 1]].targets == there[[3, 1]].targets).all()
        assert (here[[3, 1]].images == there[[3, 1]].images).all()


def test_a_forked_process_is_told_to_be_spawned(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for threads that only its parent has."""
    cache = open_cache(there)
    monkeypatch.setattr(bucket, "_PROCESS", os.getpid() + 1)
    with pytest.raises(UsageError) as refused:
        cache.read_view(0)
    assert "spawn" in refused.value.hint


def test_info_fetches_the_manifest_alone(tmp_path: Path, there: str, asked: list[str]) -> None:
    found, local = describe(there), describe(tmp_path / "small.zarr")
    assert set(asked) == {"manifest.json"}
    assert found == {**local, "path": there}
    assert succeed("info", there) == {**succeed("info", tmp_path / "small.zarr"), "path": there}


def test_info_tells_how_much_of_an_unfinished_cache_is_there(tmp_path: Path, address: str) -> None:
    here = write_some(tmp_path / "small.zarr", [0, 2])
    push(here, Bucket(address))
    found, local = describe(address), describe(here)
    assert (found["complete"], found["shards_done"], found["shards"]) == (False, 2, local["shards"])
    refuse(3, ("2 of", address), "train-student", "--cache", address, hint="bancache dump")


def test_verify_reads_everything_and_names_what_is_damaged(
    tmp_path: Path, there: str, asked: list[str]
) -> None:
    assert succeed("verify", there, "--deep")["intact"]
    assert set(open_cache(there).digests) <= set(asked)
    store = Bucket(there)
    content = store.get(CHUNK, 10_000) or b""
    flipped = content[:5] + bytes([content[5] ^ 1]) + content[6:]
    for damage in (flipped, content[:-1], content + b"\0", None):
        store.delete([CHUNK]) if damage is None else store.put(CHUNK, damage)
        outcome = call("verify", there, "--json")
        (found,) = outcome.json["findings"]
        assert (outcome.code, found["file"], found["shard"]) == (3, CHUNK, 5 - 1)
        with pytest.raises(CacheDamagedError, match=r"view 1, samples 14 to 27") as damaged:
            open_cache(there).read_view(1)
        assert there in str(damaged.value)
        assert f"bancache repair {there}" in damaged.value.hint
        assert open_cache(there).read_view(0)


def test_other_objects_are_noted_and_no_damage(there: str) -> None:
    Bucket(there).put("letter", b"from somebody")
    said = succeed("verify", there)
    assert said["intact"]
    assert any("letter" in note for note in said["notes"])


def test_a_cache_that_was_replaced_is_not_called_damaged(tmp_path: Path, there: str) -> None:
    cache = open_cache(there)
    push(write(tmp_path / "other.zarr", make_manifest(num_views=2)), Bucket(there), overwrite=True)
    with pytest.raises(MismatchError):
        cache.read_view(2)


@pytest.mark.parametrize("fault", [*FAULTS, "slow"])
def test_faults_now_and_then_change_nothing(
    there: str, way: FaultyWay, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(total=30.0, pause=0.02, read=0.5, request=1.0) if fault == "stall" else None
    monkeypatch.setattr(bucket, "PATIENCE", patience or Patience(total=30.0, pause=0.02))
    way.set(fault, every=10 if fault == "stall" else 3)
    require_same_views(open_cache(there))
    if fault != "stall":
        assert verify_cache(there) == []
    assert way.met >= 2


@pytest.mark.parametrize("fault", ["unavailable", "cut"])
def test_a_store_that_fails_for_good_is_one_line(
    there: str, way: FaultyWay, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "PATIENCE", Patience(total=0.1, pause=0.02, read=0.5, request=1.0))
    cache = open_cache(there)
    way.set(fault)
    for read in (lambda: open_cache(there), lambda: cache.read_view(0)):
        with pytest.raises(StorageError, match=there) as failed:
            read()
        assert (failed.value.exit_code, len(str(failed.value).splitlines())) == (6, 1)


COMMANDS = (["info"], ["verify"], ["train-student", "--cache"], ["bench", "--cache"])


@pytest.mark.parametrize("argv", COMMANDS, ids=lambda argv: argv[0])
def test_what_is_not_there_is_named(address: str, argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(3, (address,), *argv, address, hint="bancache push")
    nowhere = address.replace(f"//{BUCKET}/", "//nobody/")
    refuse(6, ("NoSuchBucket", nowhere), *argv, nowhere, hint="bucket")
    refuse(2, ("nowhere://b/gen0.zarr",), *argv, "nowhere://b/gen0.zarr", hint="s3://")
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    refuse(1, "obstore", *argv, address, hint="bancache[s3]")


def test_missing_credentials_are_named_at_once(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(store: object, key: str) -> None:
        raise OSError("Error performing PUT http://169.254.169.254/latest/api/token in 3ms - HTTP error")

    monkeypatch.setattr(obstore, "get", ask)
    monkeypatch.setattr("bancache.system.bucket.time.sleep", pytest.fail)
    refuse(6, (there, "credentials"), "info", there, hint="AWS_ACCESS_KEY_ID")


@pytest.mark.parametrize(
    "argv",
    [
        ["extend", "{}", "--num-views", "4", "--out", "b.zarr"],
        ["prune", "{}", "--num-views", "1", "--out", "b.zarr"],
        ["merge", "{}", "--out", "b.zarr"],
        ["push", "{}", "s3://bucket/elsewhere.zarr"],
    ],
    ids=lambda argv: argv[0],
)
def test_what_needs_a_folder_says_how_to_get_one(
    there: str, argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [part.format(there) for part in argv]
    refuse(2, (there,), *filled, hint=f"bancache pull {there}", keep=tmp_path)


def test_a_checkpoint_is_not_written_to_an_address(
    dumped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(
        2, ("s3://b/gen1.pt",), "train-student", "--cache", dumped, "--out", "s3://b/gen1.pt", hint="--out"
    )
    assert not list(tmp_path.iterdir())


def test_a_few_objects_are_in_memory_at_once() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number

    taken = 0
    for taken, number in enumerate(in_threads(work, range(20), at_once=4), 1):
        assert number == taken - 1
        assert len(begun) <= taken + 4
    assert taken == 20
