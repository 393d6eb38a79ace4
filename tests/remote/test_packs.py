"""Packs in an object store: the same pictures, whatever answers are lost, cut or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest
from contracts.calling import call, refuse, succeed
from contracts.object_store import FaultyWay
from contracts.photographs import write_photographs

from bancache.errors import DataError, StorageError
from bancache.sources import open_source
from bancache.sources.pack import PackImages, open_file
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import pack
from bancache.sources.spec import DataSpec
from bancache.system import object_parts
from bancache.system.bucket import Bucket, Patience
from bancache.system.object_parts import ObjectParts
from bancache.system.progress import Silent
from bancache.system.signals import Interrupt


@pytest.fixture
def packed(tmp_path: Path, address: str) -> tuple[Path, str]:
    """A pack on the disk, and the address of its copy."""
    source, out = f"folder:{write_photographs(tmp_path / 'photos', train=9, test=6)}", tmp_path / "d.pack"
    pack(source, out, Shape("encoded"), progress=Silent(), interrupt=Interrupt())
    Bucket(address).put("d.pack", out.read_bytes())
    return out, f"pack:{address}/d.pack"


@pytest.mark.parametrize("fault", ["", "unavailable", "cut", "reset"])
def test_the_pictures_are_those_of_the_file(
    packed: tuple[Path, str], way: FaultyWay, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.system.bucket.PATIENCE", Patience(total=30.0, pause=0.02))
    monkeypatch.setattr("bancache.sources.pack.free_on_host", lambda: 0)
    way.set(fault, every=3)
    there, here = (open_source(where, "train") for where in (packed[1], f"pack:{packed[0]}"))
    assert there.fingerprint == here.fingerprint
    theirs, ours = there.images, here.images
    assert isinstance(theirs, PackImages)
    assert isinstance(ours, PackImages)
    for sample in (5, 0, 8, 1):
        assert np.array_equal(theirs.read(sample), ours.read(sample))
    assert list(there.paths or ()) == list(here.paths or ())
    assert way.met > 0 or not fault


def test_a_small_pack_is_fetched_into_memory(packed: tuple[Path, str]) -> None:
    spec = DataSpec(packed[1])
    assert spec.resolved() == spec
    there, here = spec.open("train"), open_source(f"pack:{packed[0]}", "train")
    assert np.array_equal(there.images.flat, here.images.flat)


def test_a_picture_that_was_changed_in_the_store_is_named(packed: tuple[Path, str], address: str) -> None:
    content = bytearray(packed[0].read_bytes())
    content[100] ^= 1
    Bucket(address).put("d.pack", bytes(content))
    with pytest.raises(DataError, match=r"sample 0 of train \(train/checks/00\.png\) is damaged"):
        open_source(packed[1], "train")


def test_what_is_not_there_or_does_not_answer_is_named(
    packed: tuple[Path, str], way: FaultyWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"e\.pack does not exist"):
        open_source(packed[1].replace("d.pack", "e.pack"), "train")
    monkeypatch.setattr("bancache.system.bucket.PATIENCE", Patience(total=0.1, pause=0.02))
    way.set("unavailable")
    with pytest.raises(StorageError, match="503"):
        open_source(packed[1], "train")


def test_commands_describe_check_and_mend_a_pack_at_its_address(
    packed: tuple[Path, str], address: str, way: FaultyWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.system.bucket.PATIENCE", Patience(total=30.0, pause=0.02))
    monkeypatch.setattr(object_parts, "_BLOCK_BYTES", 1000)  # pictures lie in several
    here, there = packed[0], f"{address}/d.pack"
    assert succeed("info", there) == {**succeed("info", here), "pack": there}
    assert succeed("verify", there, "--deep")["intact"] is True
    whole = here.read_bytes()
    broken, (first, _, second, end) = (
        bytearray(whole),
        open_file(here).index("train").offsets[[0, 1, 7, 8]].tolist(),
    )
    broken[first + 9] ^= 1
    broken[second:end] = bytes(end - second)
    Bucket(address).put("d.pack", bytes(broken))
    findings = call("verify", there, "--json")
    assert findings.code == 1
    assert [(f["split"], f["sample"]) for f in findings.json["findings"]] == [("train", 0), ("train", 7)]
    way.set("unavailable", every=5)
    assert succeed("repair", there)["pictures"] == 2
    assert way.met > 0
    way.set("")
    assert Bucket(address).get("d.pack", 1 << 30) == whole
    assert succeed("repair", there)["pictures"] == 0
    refuse(1, "does not exist", "info", f"{address}/e.pack")


def test_an_object_is_put_in_parts_whose_requests_may_fail_or_not_at_all(
    address: str, way: FaultyWay
) -> None:
    bucket, content = Bucket(address), np.random.default_rng(0).bytes(21 << 20)

    def parts() -> Iterator[bytes]:
        for start in range(0, len(content), 1 << 20):
            yield content[start : start + (1 << 20)]

    def broken() -> Iterator[bytes]:
        yield content[: 18 << 20]
        raise DataError("the source is gone")

    with pytest.raises(DataError, match="is gone"):
        bucket.put_streamed("it", broken, len(content))
    assert bucket.head("it") is None
    way.set("unavailable", every=3)
    bucket.put_streamed("it", parts, len(content))
    assert way.met > 1
    way.set("")
    assert bucket.get("it", len(content)) == content


class Counted:
    """An object in memory that counts the bytes that are asked for."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked = content, list[int]()

    def head(self, key: str) -> Any:
        return type("Info", (), {"size": len(self.content)})

    def part(self, key: str, start: int, length: int) -> bytes:
        self.asked.append(length)
        return self.content[start : start + length]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], tuple[ObjectParts, Counted]]:
    def make(size: int) -> tuple[ObjectParts, Counted]:
        store = Counted(np.random.default_rng(0).bytes(size))
        monkeypatch.setattr(object_parts, "Bucket", lambda address: store)
        return ObjectParts("s3://bucket/it", "it"), store

    return make


def test_runs_are_fetched_in_blocks_and_few_are_kept(
    counted: Callable[[int], tuple[ObjectParts, Counted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_parts, "_BLOCK_BYTES", 1000)
    parts, store = counted(99_500)
    for start in range(0, 99_500, 50):
        assert parts.read(start, 50).tobytes() == store.content[start : start + 50]
        assert len(parts._kept) <= 64
    assert sum(store.asked) < 1.01 * 99_500
    parts.close()
    assert not parts._kept


def test_pieces_in_random_order_cost_little_more_than_themselves(
    counted: Callable[[int], tuple[ObjectParts, Counted]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_parts, "_BLOCK_BYTES", 1000)
    parts, store = counted(4_000_000)
    for start in np.random.default_rng(1).integers(0, 3_999_000, 300).tolist():
        assert parts.read(start, 700).tobytes() == store.content[start : start + 700]
    assert sum(store.asked) < 1.1 * 300 * 700


def test_too_short_a_part_is_asked_for_again(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = obstore.get_range, list[int]()

    def get_range(*given: Any, **more: Any) -> bytes:
        found = bytes(real(*given, **more))
        asked.append(len(found))
        return found if len(asked) > 1 else found[:-1]

    monkeypatch.setattr(obstore, "get_range", get_range)
    bucket = Bucket(address, Patience(total=30.0, pause=0.01))
    bucket.put("a", bytes(range(100)))
    assert bucket.part("a", 10, 20) == bytes(range(10, 30))
    assert asked == [20, 20]
