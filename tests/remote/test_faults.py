"""A request that fails now and then is repeated; one that fails for good ends in one line, and nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from contracts.killing import tree
from contracts.object_store import BUCKET, FAULTS, VARIABLES, FaultyWay
from contracts.small_cache import SHARD_BYTES, write

from bancache.errors import StorageError, UsageError
from bancache.remote.lease import LEASE_SECONDS
from bancache.remote.pull import pull
from bancache.remote.push import push
from bancache.system.bucket import IMPATIENT, PATIENCE, Bucket, Patience
from bancache.system.locks import HOLDER

# As the default, with shorter pauses, for a store on this machine that fails on purpose; and one that gives up soon.
PATIENT = Patience(total=30.0, pause=0.02)
GIVING_UP = Patience(total=0.2, pause=0.02)


def told_to_hurry(patience: Patience, fault: str) -> Patience:
    """Return a patience that does not wait long for a response that never comes."""
    return replace(patience, read=0.5, request=1.0) if fault == "stall" else patience


@pytest.fixture(autouse=True)
def _few_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SHARD_BYTES, 300)


@pytest.mark.parametrize("fault", [*FAULTS, "slow"])
def test_faults_now_and_then_change_nothing(tmp_path: Path, way: FaultyWay, address: str, fault: str) -> None:
    cache, back = write(tmp_path / "gen0.zarr"), tmp_path / "back.zarr"
    way.set(fault, every=10 if fault == "stall" else 3)
    patience = told_to_hurry(PATIENT, fault)
    assert push(cache, Bucket(address, patience)).complete
    assert pull(Bucket(address, patience), back).complete
    assert way.met >= 3
    assert tree(back) == tree(cache)
    way.set("")
    # A lease that could not be released ends with its process, or by its time.
    assert set(Bucket(address).listed()) - {HOLDER} == set(tree(cache))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_for_good_is_one_line_and_nothing_is_lost(
    tmp_path: Path, way: FaultyWay, address: str, fault: str
) -> None:
    cache, back = write(tmp_path / "gen0.zarr"), tmp_path / "back.zarr"
    before = tree(cache)
    way.set(fault)
    with pytest.raises(StorageError) as failed:
        push(cache, Bucket(address, told_to_hurry(GIVING_UP, fault)))
    assert failed.value.exit_code == 6
    assert address in str(failed.value)
    assert len(str(failed.value).splitlines()) == 1
    assert len(str(failed.value)) < 200
    assert tree(cache) == before
    way.set("")
    push(cache, Bucket(address, PATIENT))
    way.set(fault)
    with pytest.raises(StorageError):
        pull(Bucket(address, told_to_hurry(GIVING_UP, fault)), back)
    assert not back.exists()
    way.set("")
    pull(Bucket(address), back)
    assert tree(back) == before


def test_after_a_failure_in_the_middle_the_rest_is_sent(
    tmp_path: Path, way: FaultyWay, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails from the n-th request on, for good; the next attempt sends what is left."""
    cache, sent = write(tmp_path / "gen0.zarr"), 0
    real = Bucket.put

    def until_it_fails(self: Bucket, key: str, content: bytes) -> None:
        nonlocal sent
        sent += 1
        if sent == 7:
            way.set("unavailable")
        real(self, key, content)

    monkeypatch.setattr(Bucket, "put", until_it_fails)
    with pytest.raises(StorageError, match="503"):
        push(cache, Bucket(address, GIVING_UP))
    way.set("")
    assert push(cache, Bucket(address)).kept >= 3
    pull(Bucket(address), tmp_path / "back.zarr")
    assert tree(tmp_path / "back.zarr") == tree(cache)


def test_a_failing_store_is_tried_for_less_than_a_minute() -> None:
    """The request that failed, then a renewal of the lease and its release, which fail too."""

    def longest(patience: Patience) -> float:
        return patience.total + patience.pause + patience.request  # the last may begin just before ``total``

    assert longest(PATIENCE) + 2 * longest(IMPATIENT) < 60
    assert longest(PATIENCE) < LEASE_SECONDS / 2


def test_a_missing_bucket_is_named(address: str) -> None:
    elsewhere = address.replace(f"//{BUCKET}/", "//nobody/")
    for ask in (
        lambda: Bucket(elsewhere).put("a", b"b"),
        lambda: Bucket(elsewhere).get("a", 1),
        lambda: Bucket(elsewhere).listed(),
    ):
        with pytest.raises(StorageError, match=r"404 .*NoSuchBucket.*s3://nobody/\d+/gen0.zarr"):
            ask()


def test_a_servers_message_becomes_a_short_line_of_letters() -> None:
    from bancache.system.wording import reason_of

    said = "Generic S3 error: Error performing GET http://a/b in 1ms - Server returned status 500: \x1b[31m"
    assert reason_of(OSError(said + "x" * 1000)) == "server returned status 500: [31m" + "x" * 128
    assert reason_of(OSError("")) == "OSError"


def test_refused_credentials_are_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from obstore.exceptions import PermissionDeniedError

    def refused(*arguments: object) -> None:
        raise PermissionDeniedError(
            "Error performing GET http://a/b in 1ms - Server returned 403 Forbidden: <x>"
        )

    monkeypatch.setattr("obstore.get", refused)
    with pytest.raises(StorageError, match=r"403 .*s3://") as failed:
        Bucket(address).get("a", 1)
    assert "AWS_SECRET_ACCESS_KEY" in failed.value.hint


def test_an_address_of_no_known_kind_is_refused(address: str) -> None:
    for wrong in ("nowhere://bucket/gen0.zarr", "gen0.zarr", "s3:"):
        with pytest.raises(UsageError, match=wrong):
            Bucket(wrong)


def test_an_endpoint_without_tls_is_used_only_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from bancache.system.bucket import client_options

    assert client_options(Patience(), VARIABLES)["allow_http"] is False
    assert client_options(Patience(), {"AWS_ENDPOINT_URL": "https://localhost"})["allow_http"] is False
    assert client_options(Patience(), {"AWS_ENDPOINT_URL": "http://localhost"})["allow_http"] is True
