"""The format of packs: what a reader checks, and what a writer leaves when it dies."""

from __future__ import annotations

import errno
import os
import pickle
import random
import signal
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from contracts.failing import Killed, fail_at
from contracts.killing import Forker
from contracts.photographs import write_photographs
from contracts.stopping import StopAfter
from sources.tiny import Heard, encode, make_folder, make_npz, make_parquet, random_images

from bancache.errors import (
    DataError,
    MismatchError,
    OutOfMemoryError,
    StoppedError,
    StorageError,
    UsageError,
)
from bancache.sources import open_source
from bancache.sources.image_set import channel_statistics, fingerprint_images
from bancache.sources.pack import DamagedError, PackImages, open_file
from bancache.sources.pack_format import PROLOGUE
from bancache.sources.pack_partial import RECORDS
from bancache.sources.pack_source import Shape
from bancache.sources.pack_writer import Summary, pack
from bancache.sources.pixels import decode
from bancache.system.progress import Silent
from bancache.system.ragged import as_ragged
from bancache.system.signals import Interrupt
from benchmarks.sparse_pack import sparse_pack

FIXTURES = Path(__file__).parent / "fixtures"
NO_MEMORY = "bancache.sources.pack.free_on_host"


def packed(source: str, out: Path, shape: Shape | None = None, **options: Any) -> Summary:
    options = {"progress": Silent(), "interrupt": Interrupt(), "threads": 2, **options}
    return pack(source, out, shape or Shape("encoded"), **options)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    return f"folder:{write_photographs(tmp_path / 'photos', train=9, test=6)}"


@pytest.mark.parametrize("image_size", [None, 8])
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_encoded_pack_is_the_data_of_its_folder(
    tmp_path: Path, photos: str, split: str, image_size: int | None
) -> None:
    packed(photos, tmp_path / "d.pack")
    here = open_source(f"pack:{tmp_path / 'd.pack'}", split, image_size=image_size)
    there = open_source(photos, split, image_size=image_size, cache_dir=tmp_path / "kept")
    assert here.fingerprint == there.fingerprint == fingerprint_images(here.images, here.labels, here.classes)
    assert here.statistics == there.statistics == channel_statistics(here.images)
    assert np.array_equal(as_ragged(here.images).flat, as_ragged(there.images).flat)
    assert here.paths is not None
    assert there.paths is not None
    folder = photos.removeprefix("folder:")
    assert [path.removeprefix(f"{folder}/") for path in there.paths] == [
        path.removeprefix(f"{folder}/") for path in here.paths
    ]


@pytest.mark.parametrize("make", [make_folder, make_parquet])
def test_pictures_of_one_size_stay_an_array(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = f"{make.__name__.removeprefix('make_')}:{make(tmp_path / 'd')}"
    packed(source, tmp_path / "d.pack")
    here = open_source(f"pack:{tmp_path / 'd.pack'}", "train")
    there = open_source(source, "train", cache_dir=tmp_path / "kept")
    assert here.fingerprint == there.fingerprint
    assert np.array_equal(here.images, there.images)
    assert here.images.shape == (5, 5, 5, 3)


def odd_pictures(root: Path) -> str:
    """Write a gray, a color, a turned and a deep picture for each split."""
    from PIL import Image

    gray, color = random_images(1, channels=1)[0], random_images(2, height=4, width=7)
    for split in ("train", "test"):
        for number, content in enumerate((encode(gray), encode(color[0]))):
            file = root / split / "a" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        turned = Image.Exif()
        turned[0x0112] = 6
        (file.parent / "2.jpg").write_bytes(encode(color[1], "JPEG", exif=turned))
        Image.fromarray(np.full((4, 7), 900, np.uint16)).save(file.parent / "3.png")
    return f"folder:{root}"


def test_gray_deep_turned_and_odd_pictures_are_those_of_the_folder(tmp_path: Path) -> None:
    odd_pictures(tmp_path / "d")
    heard = Heard()
    packed(f"folder:{tmp_path / 'd'}", tmp_path / "d.pack", progress=heard)
    for split in ("train", "test"):
        here = open_source(f"pack:{tmp_path / 'd.pack'}", split)
        there = open_source(f"folder:{tmp_path / 'd'}", split, cache_dir=tmp_path / "kept")
        assert here.fingerprint == there.fingerprint
        assert here.fingerprint == fingerprint_images(here.images, here.labels, here.classes)
    assert any("1,023 is white" in note for note in heard.notes)
    assert any("turned upright" in note for note in heard.notes)


@pytest.mark.parametrize(("processes", "fits"), [("2", True), ("3", False)])
def test_processes_of_one_machine_share_its_memory(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch, processes: str, fits: bool
) -> None:
    packed(photos, tmp_path / "d.pack")
    needed = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images.nbytes
    monkeypatch.setattr(NO_MEMORY, lambda: 4 * needed)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    images = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images
    assert isinstance(images, PackImages) != fits


@pytest.mark.parametrize("kind", ["encoded", "pixels"])
def test_what_does_not_fit_in_memory_is_read_picture_by_picture(
    tmp_path: Path, photos: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(photos, tmp_path / "d.pack", Shape(kind))
    there = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images
    monkeypatch.setattr(NO_MEMORY, lambda: 2 * there.nbytes - 2)
    heard = Heard()
    images = open_source(f"pack:{tmp_path / 'd.pack'}", "train", progress=heard)
    assert len(heard.notes) == 1
    stored = images.images
    assert isinstance(stored, PackImages)
    assert (len(stored), stored.nbytes, images.channels) == (len(there), there.nbytes, 3)
    for sample in (3, 0, 8):
        assert np.array_equal(stored.read(sample), there[sample])
    stored.close()
    assert np.array_equal(stored.take([7, 1])[1], there[1])
    assert len(stored.first(2)) == 2
    monkeypatch.setattr(NO_MEMORY, lambda: 2 * there.nbytes)
    assert open_source(f"pack:{tmp_path / 'd.pack'}", "train").fingerprint == images.fingerprint


def test_pictures_are_read_in_another_process(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed(photos, tmp_path / "d.pack")
    monkeypatch.setattr(NO_MEMORY, lambda: 0)
    images: Any = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images
    there = pickle.loads(pickle.dumps(images))
    assert np.array_equal(there.read(4), images.read(4))


def test_reading_leaves_no_descriptor(tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(photos, tmp_path / "d.pack")
    before = len(list(Path("/proc/self/fd").iterdir()))
    open_source(f"pack:{tmp_path / 'd.pack'}", "train")
    monkeypatch.setattr(NO_MEMORY, lambda: 0)
    images: Any = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images
    images.read(0)
    images.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_another_pack_in_the_place_of_one_that_is_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have the same layout, so that each picture of the other one fits the digest that is found beside it."""
    used, other = tmp_path / "d.pack", tmp_path / "other.pack"
    packed(f"npz:{make_npz(tmp_path / 'd.npz')}", used, Shape("pixels"))
    packed(
        f"npz:{make_npz(tmp_path / 'o.npz', train_images=random_images(5, seed=2))}", other, Shape("pixels")
    )
    monkeypatch.setattr(NO_MEMORY, lambda: 0)
    images: Any = open_source(f"pack:{used}", "train").images
    images.read(0)
    images.close()  # as at the end of an epoch
    other.replace(used)
    for sample in (0, 1):
        with pytest.raises(DataError, match="another file"):
            images.read(sample)


def test_an_object_of_a_store_is_checked_at_every_answer(tmp_path: Path, photos: str) -> None:
    pack = packed(photos, tmp_path / "d.pack").pack
    pack.file.near = False
    images = pack.images("train")
    images.read(0)
    content = bytearray((tmp_path / "d.pack").read_bytes())
    content[int(images.index.offsets[1]) - 1] ^= 1
    (tmp_path / "d.pack").write_bytes(content)
    with pytest.raises(DamagedError):
        images.read(0)


def test_a_picture_of_a_large_pack_takes_few_bytes_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NO_MEMORY, lambda: 0)
    count = 100_000
    source = f"pack:{sparse_pack(tmp_path / 'd.pack', count, height=2, width=3)}"
    open_source(source, "test")  # whatever is imported
    tracemalloc.start()
    images: Any = open_source(source, "train")
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert images.images.nbytes == count * 2 * 3 * 3
    assert held < 30 * count  # where it lies, its size and its label; its sha256 and path stay in the file
    assert most < 80 * count
    assert images.images.read(count - 1).tobytes() == bytes(18)
    assert images.paths is not None
    assert images.paths[7] == "train/black/00000007.png"


# Packing


def test_pixels_are_resampled_once_to_the_shorter_side(tmp_path: Path, photos: str) -> None:
    asked: list[tuple[Any, Any, Any]] = []

    def resize(pixels: Any, box: Any, size: Any) -> Any:
        asked.append((pixels.shape, box, size))
        return np.zeros((*size, pixels.shape[2]), np.uint8)

    packed(photos, tmp_path / "d.pack", Shape("pixels", 10, resize=resize), threads=1)
    images = open_source(f"pack:{tmp_path / 'd.pack'}", "train").images
    there = open_source(photos, "train", cache_dir=tmp_path / "kept").images
    for (shape, box, size), here, picture in zip(asked, images, there, strict=False):
        assert shape == picture.shape
        assert box == (0, 0, *picture.shape[:2])
        assert size == here.shape[:2]
        assert min(size) == 10
        assert max(size) == round(10 * max(picture.shape[:2]) / min(picture.shape[:2]) + 1e-9)
    asked.clear()
    packed(photos, tmp_path / "s.pack", Shape("pixels", 10, square=True, resize=resize))
    assert open_source(f"pack:{tmp_path / 's.pack'}", "train").images.shape == (9, 10, 10, 3)
    assert all(box[2] == box[3] == min(shape[:2]) for shape, box, _ in asked)


def test_a_narrow_picture_is_enlarged_unless_it_becomes_longer_than_memory() -> None:
    """Both of its sides grow, however many times as long as the other one is."""

    def sides(pixels: Any, box: Any, size: Any) -> Any:
        return size

    assert Shape("pixels", 2, resize=sides).apply(np.zeros((1, 600, 3), np.uint8), "a.png") == (2, 1200)
    with pytest.raises(OutOfMemoryError, match=r"a\.png"):
        Shape("pixels", 4096, resize=sides).apply(np.zeros((1, 60_000, 3), np.uint8), "a.png")
    with pytest.raises(DataError, match=r"a\.png is too large"):
        Shape("pixels", 2, resize=sides).apply(np.zeros((600, 600, 3), np.uint8), "a.png")


def test_a_packing_that_dies_at_any_call_goes_on_to_the_same_bytes(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bancache.sources.pack_partial._FLUSH_BYTES", 12000)
    packed(photos, tmp_path / "whole.pack")
    whole, number = (tmp_path / "whole.pack").read_bytes(), 0
    while True:
        number += 1
        out = tmp_path / f"{number}.pack"
        with monkeypatch.context() as patch:
            made = fail_at(patch, number, Killed)
            try:
                packed(photos, out)
                break
            except Killed:
                pass
        # What a process that is killed cannot remove; an exception lets this one.
        out.with_name(f"{out.name}.lock").write_text("{}")
        packed(photos, out)
        assert out.read_bytes() == whole
        assert [*tmp_path.glob(f"{number}.*")] == [out]
    assert number > 8
    assert len(made) == number - 1


def test_a_pack_is_complete_also_where_the_lock_that_a_kill_left_cannot_be_taken(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pack may have filled the disk, and a lock holds a note."""
    out = tmp_path / "a.pack"
    packed(photos, out)
    (tmp_path / "a.pack.lock").write_text("{}")

    def full(*about: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    assert not packed(photos, out).made


def test_a_packing_killed_at_random_moments_goes_on_to_the_same_bytes(
    tmp_path: Path, photos: str, forker: Forker
) -> None:
    packed(photos, tmp_path / "whole.pack")
    whole, out = (tmp_path / "whole.pack").read_bytes(), tmp_path / "d.pack"
    partial, chance, deaths = tmp_path / "d.pack.partial", random.Random(0), 0
    # A flush for every few pictures, as packs of many gigabytes have them.
    often = {"bancache.sources.pack_partial._FLUSH_BYTES": 6000}
    for share in (0.1, 0.3, 0.5, 0.7):
        size = chance.uniform(share, share + 0.2) * len(whole)
        command = ["pack", "--data", photos, "--out", str(out), "--threads", "1"]
        moment = (lambda size=size: partial.exists() and partial.stat().st_size >= size, 0, signal.SIGKILL)
        ((code, said),) = forker.run_together([command], signals=[moment], attributes=often)
        assert code in (0, -signal.SIGKILL), said
        deaths += code == -signal.SIGKILL
    assert deaths > 1
    assert forker.run(command)[0] == 0
    assert out.read_bytes() == whole
    assert not partial.exists()


def test_a_torn_end_is_packed_again(tmp_path: Path, photos: str) -> None:
    packed(photos, tmp_path / "whole.pack")
    out = tmp_path / "d.pack"
    with pytest.raises(StoppedError):
        packed(photos, out, interrupt=StopAfter(7))
    partial, journal = out.with_name("d.pack.partial"), out.with_name("d.pack.journal")
    with partial.open("ab") as stream:
        stream.write(b"of the next picture")
    with journal.open("ab") as stream:
        stream.write(b"half a record")
    packed(photos, out)
    assert out.read_bytes() == (tmp_path / "whole.pack").read_bytes()


def test_pictures_whose_data_a_power_cut_took_are_packed_again(tmp_path: Path, photos: str) -> None:
    packed(photos, tmp_path / "whole.pack")
    out = tmp_path / "d.pack"
    with pytest.raises(StoppedError):
        packed(photos, out, interrupt=StopAfter(7))
    partial = out.with_name("d.pack.partial")
    os.truncate(partial, partial.stat().st_size - 1)
    packed(photos, out)
    assert out.read_bytes() == (tmp_path / "whole.pack").read_bytes()


def test_no_picture_is_in_the_journal_before_its_data_are_flushed(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written may reach the disk in any order until it is flushed."""
    monkeypatch.setattr("bancache.sources.pack_partial._FLUSH_BYTES", 12000)
    real, flushed, noted = os.fsync, [PROLOGUE.size], list[int]()

    def fsync(descriptor: int) -> None:
        records = (tmp_path / "d.pack.journal").read_bytes().partition(b"\n")[2]
        noted.append(PROLOGUE.size + int(np.frombuffer(records, RECORDS)["length"].sum()))
        assert noted[-1] <= max(flushed)
        real(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path / "d.pack.partial":
            flushed.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    packed(photos, tmp_path / "d.pack")
    assert len(set(noted)) > 2


def test_the_center_square_is_that_of_tall_pictures_too() -> None:
    assert Shape("pixels", 4, square=True).box(10, 5) == (2, 0, 5, 5)
    assert Shape("pixels", 4, square=True).box(5, 10) == (0, 2, 5, 5)
    assert Shape("pixels", 4).box(10, 5) == (0, 0, 10, 5)


def test_a_stopped_packing_to_pixels_does_not_decode_its_pictures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, photos, decoded = tmp_path / "d.pack", tmp_path / "photos", list[str]()
    for split in ("train", "test"):
        (photos / split / "a").mkdir(parents=True)
        for number, image in enumerate(random_images(4)):
            (photos / split / "a" / f"{number}.jpg").write_bytes(encode(image, "JPEG"))
    with pytest.raises(StoppedError, match="3 of 8 pictures"):
        packed(f"folder:{photos}", out, Shape("pixels"), interrupt=StopAfter(2))

    def counting(where: str, *rest: Any) -> Any:
        decoded.append(where)
        return decode(where, *rest)

    monkeypatch.setattr("bancache.sources.pack_source.decode", counting)
    packed(f"folder:{photos}", out, Shape("pixels"))
    assert len(decoded) == 5


@pytest.mark.parametrize("kind", ["encoded", "pixels"])
@pytest.mark.parametrize("looks", [1, 4, 7])
def test_a_stopped_packing_that_goes_on_says_what_was_decided_for_all_pictures(
    tmp_path: Path, kind: Literal["encoded", "pixels"], looks: int
) -> None:
    photos, whole, rest = odd_pictures(tmp_path / "d"), Heard(), Heard()
    packed(photos, tmp_path / "whole.pack", Shape(kind), progress=whole)
    with pytest.raises(StoppedError):
        packed(photos, tmp_path / "d.pack", Shape(kind), interrupt=StopAfter(looks))
    packed(photos, tmp_path / "d.pack", Shape(kind), progress=rest)
    assert len(whole.notes) == 7
    assert rest.notes == whole.notes


@pytest.mark.parametrize("change", ["source", "kind", "partial"])
def test_a_packing_does_not_go_on_from_something_else(tmp_path: Path, photos: str, change: str) -> None:
    out = tmp_path / "d.pack"
    with pytest.raises(StoppedError):
        packed(photos, out, interrupt=StopAfter(7))
    if change == "source":
        (tmp_path / "photos/train/checks/99.png").write_bytes(encode(random_images(1)[0]))
    if change == "partial":
        content = bytearray(out.with_name("d.pack.partial").read_bytes())
        content[100] ^= 1
        out.with_name("d.pack.partial").write_bytes(content)
    with pytest.raises(DataError if change == "partial" else MismatchError) as refused:
        packed(photos, out, Shape("pixels" if change == "kind" else "encoded"))
    assert "--overwrite" in refused.value.hint
    packed(photos, out, overwrite=True)
    assert open_source(f"pack:{out}", "train").fingerprint == open_source(photos, "train").fingerprint


def test_a_full_disk_is_refused_with_numbers_or_keeps_what_was_packed(
    tmp_path: Path, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d.pack"
    with monkeypatch.context() as patch:
        patch.setattr("bancache.sources.pack_writer.free_bytes", lambda place: 10_000)
        with pytest.raises(StorageError, match=r"0\.0 GB"):
            packed(photos, out)
    assert not list(tmp_path.glob("d.pack*"))
    monkeypatch.setattr("bancache.sources.pack_partial._FLUSH_BYTES", 6000)
    with monkeypatch.context() as patch:
        fail_at(patch, 5, lambda: OSError(errno.ENOSPC, "no space"))
        with pytest.raises(StorageError, match="no space left on device"):
            packed(photos, out)
    assert out.with_name("d.pack.partial").stat().st_size > 6000
    packed(photos, out)
    assert len(open_source(f"pack:{out}", "train")) == 9


def test_a_split_whose_pictures_are_all_bad_is_named_picture_by_picture(tmp_path: Path, photos: str) -> None:
    files = sorted((tmp_path / "photos/train").rglob("*.png"))
    for file in files:
        file.write_bytes(b"x")
    with pytest.raises(DataError, match=f"{len(files)} of 15 pictures.*{files[0].name}"):
        packed(photos, tmp_path / "d.pack")
    with pytest.raises(DataError, match="no images that can be read"):
        packed(photos, tmp_path / "d.pack", skip_bad=True)


def test_bad_pictures_are_all_named_or_left_out(tmp_path: Path, photos: str) -> None:
    for name in ("train/checks/00.png", "train/stripes/02.png", "test/checks/00.png"):
        (tmp_path / "photos" / name).write_bytes(b"no picture")
    out, heard = tmp_path / "d.pack", Heard()
    with pytest.raises(DataError) as refused:
        packed(photos, out)
    assert all(name in str(refused.value) for name in ("3 of 15", "checks/00.png", "stripes/02.png"))
    assert "--skip-bad" in refused.value.hint
    assert not out.exists()
    done = packed(photos, out, skip_bad=True, progress=heard)
    assert done.left_out == 3
    assert sum("left out" in note for note in heard.notes) == 2
    here = open_source(f"pack:{out}", "train")
    assert len(here) == 7
    there = open_source(photos, "train", skip_bad=True, cache_dir=tmp_path / "kept")
    assert here.fingerprint == there.fingerprint


def test_arrays_have_no_encoded_pictures(tmp_path: Path) -> None:
    source = f"npz:{make_npz(tmp_path / 'd.npz')}"
    with pytest.raises(UsageError, match="no encoded pictures"):
        packed(source, tmp_path / "d.pack")
    packed(source, tmp_path / "d.pack", Shape("pixels"))
    here = open_source(f"pack:{tmp_path / 'd.pack'}", "test")
    assert here.fingerprint == open_source(source, "test").fingerprint
    assert here.paths is None


def test_a_class_whose_name_is_no_text_is_refused_before_packing(tmp_path: Path) -> None:
    make_folder(tmp_path / "d")
    for split in ("train", "test"):
        (tmp_path / "d" / split / "cat").rename(
            os.fsdecode(os.fsencode(tmp_path / "d" / split) + b"/caf\xe9")
        )
    with pytest.raises(DataError, match="not UTF-8"):
        packed(f"folder:{tmp_path / 'd'}", tmp_path / "d.pack")
    assert not list(tmp_path.glob("d.pack*"))


def test_a_pack_can_be_packed_again(tmp_path: Path, photos: str) -> None:
    packed(photos, tmp_path / "a.pack")
    packed(f"pack:{tmp_path / 'a.pack'}", tmp_path / "b.pack")
    a, b = (open_file(tmp_path / name).header.splits for name in ("a.pack", "b.pack"))
    assert (a.train.fingerprint, a.test.fingerprint) == (b.train.fingerprint, b.test.fingerprint)
