"""A cache of decoded pixels in memory-mapped files, so that a second start neither decodes nor hashes.

Each split has two files: ``KEY.npy`` with the pixels, a run of bytes if the pictures differ in size, and ``KEY.json``
with everything else. Pixels that would take more than half of the free memory are not kept: then the JSON is alone, and
the pictures are decoded whenever they are needed. KEY is a hash of the path of the source, the rules of decoding, and the
name, size, times and inode of every source file, so a changed source gets another key. Old files, or the whole directory,
may be deleted at any time. The JSON is written last. It has a hash of itself and a checksum of each block of pixels; if
one of them is wrong, the pictures are decoded again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import google_crc32c
import numpy as np

from bancache.errors import DataError, StorageError, UsageError
from bancache.sources.encoded import EncodedImages, Facts, Look, image_set_of
from bancache.sources.golden import require_decoder
from bancache.sources.image_set import ImageSet, Known, Statistics
from bancache.sources.pictures import At, Decoding, Pictures, decode_in_memory
from bancache.sources.request import Request
from bancache.system.files import (
    TEMPORARY_SUFFIX,
    cache_directory,
    make_directory,
    read_json,
    replace_atomically,
    state_of,
    write_json,
)
from bancache.system.fingerprint import fingerprint_json
from bancache.system.memory import free_on_host
from bancache.system.ragged import Images, RaggedImages, as_ragged

# Part of every key: increase it when the decoder gives other pixels for the same picture, or the JSON changes.
DECODER_VERSION = 2

_LARGEST_JSON = 1 << 30
_BLOCK_BYTES = 1 << 24
_DAY_SECONDS = 86400


def open_kept(
    request: Request,
    files: Sequence[Path],
    read: Callable[[], Pictures],
    *,
    paths: tuple[str, ...] | None = None,
) -> ImageSet:
    """Map the pixels that an earlier call kept, or decode and keep them now.

    If they cannot be kept, they are decoded into memory; if they would take more than half of the free memory, the pictures
    stay where they lie. A progress note says so.

    Args:
        request: Source, split and image size.
        files: All files that the result depends on; only names, sizes and times are read.
        read: Returns the pictures; called only if they must be decoded.
        paths: The pictures' files, for kept pixels of older versions, which did not keep them.
    """
    directory = request.cache_dir or cache_directory("decoded")
    pixels = directory / f"{_key(request, files)}.npy"
    kept = _open(request, pixels, paths)
    if kept is not None:
        return kept
    pictures = read()
    if (where_they_lie := _open_encoded(request, pixels.with_suffix(".json"), pictures)) is not None:
        return where_they_lie
    try:
        return _keep(request, pixels, pictures)
    # Reading raises DataError, so these come from writing.
    except (StorageError, UsageError, OSError) as error:
        request.progress.note(f"decoded pixels of {request.name} are not kept: {error}")
        return decode_in_memory(request, pictures)


def _open_encoded(request: Request, path: Path, pictures: Pictures) -> ImageSet | None:
    """Return pictures that stay where they lie, as their pixels take more than half of the free memory; None if they do not."""
    if pictures.at is None:
        return None
    found = _read_encoded(request, path, pictures, pictures.at)
    if found is None:
        look = Look(pictures, request)
        if not _is_too_much(look.needed()):
            return None
        require_decoder()
        images = look.image_set()
        facts = {**_facts_of(request, images, look.notes(images)), "encoded": look.facts().to_dict()}
        try:
            make_directory(path.parent)
            write_json(path, {"facts": facts, "sha256": fingerprint_json(facts)})
        except (StorageError, UsageError, OSError) as error:
            request.progress.note(f"what is known of the pictures of {request.name} is not kept: {error}")
    else:
        images, facts = found
        if not _is_too_much(images.images.nbytes):
            return None
        require_decoder()
    for note in facts["notes"]:
        request.progress.note(note)
    request.progress.note(
        f"{request.name} {request.split}: the pixels of {len(images):,} pictures would take {images.images.nbytes / 1e9:,.1f} GB, "
        f"and {free_on_host() / 1e9:,.1f} GB of memory are free: each picture is decoded whenever it is needed"
    )
    return images


def _read_encoded(
    request: Request, path: Path, pictures: Pictures, at: At
) -> tuple[ImageSet, dict[str, Any]] | None:
    """Return pictures that stay where they lie with the facts that an earlier start kept; None if there are none."""
    try:
        facts = _read_facts(path)
        if facts is None or "encoded" not in facts:
            return None
        stored = EncodedImages(at, Facts.from_dict(facts["encoded"]), request.image_size)
        known = Known(facts["fingerprint"], Statistics(tuple(facts["mean"]), tuple(facts["std"])))
        return image_set_of(request, pictures, stored, known, _paths(request, facts)), facts
    except (DataError, OSError, ValueError, LookupError, TypeError):
        return None  # they are found anew; what is wrong was said where pixels were looked for


def _is_too_much(pixels: int) -> bool:
    return pixels > free_on_host() // 2


def _key(request: Request, files: Sequence[Path]) -> str:
    place = request.place
    states = [(file, state_of(file)) for file in files]
    identity = {
        "decoder": [DECODER_VERSION, request.decoder],
        "kind": request.kind,
        "place": str(place),
        "split": request.split,
        "image_size": request.image_size,
        "skip_bad": request.skip_bad,
        # Size and time of a file can be set to those of another one, its inode and its time of change cannot.
        "files": [
            [str(file.relative_to(place)), s.st_size, s.st_mtime_ns, s.st_ino, s.st_ctime_ns]
            for file, s in states
        ],
    }
    return fingerprint_json(identity)[:32]


def _open(request: Request, pixels: Path, paths: tuple[str, ...] | None) -> ImageSet | None:
    try:
        facts = _read_facts(pixels.with_suffix(".json"))
        if facts is None or "encoded" in facts:
            return None
        images = _image_set(request, pixels, facts, paths)
        _require_sound(images.images, facts["crc32c"], pixels)
        notes = [str(note) for note in facts["notes"]]
    except (DataError, OSError, ValueError, KeyError, TypeError) as error:
        request.progress.note(f"decoded pixels of {request.name} are made anew: {error}")
        return None
    for note in notes:
        request.progress.note(note)
    return images


def _read_facts(path: Path) -> dict[str, Any] | None:
    """Return what is kept beside pixels, or instead of them; None if there is nothing."""
    if not path.exists():
        return None
    sealed = read_json(path, limit=_LARGEST_JSON, error=DataError)
    facts: dict[str, Any] = sealed["facts"]
    if sealed["sha256"] != fingerprint_json(facts):
        raise DataError(f"{path} is damaged")
    return facts


def _image_set(
    request: Request, pixels: Path, facts: dict[str, Any], paths: tuple[str, ...] | None
) -> ImageSet:
    statistics, labels = Statistics(tuple(facts["mean"]), tuple(facts["std"])), facts["labels"]
    mapped = np.lib.format.open_memmap(pixels, mode="r")
    if "paths" in facts:
        paths = _paths(request, facts)
    elif paths and len(paths) != len(labels):
        paths = None  # an older version left out pictures and did not keep which
    return ImageSet(
        RaggedImages(mapped, *facts["sizes"]) if "sizes" in facts else mapped,
        np.array(labels, np.int64),
        tuple(facts["classes"]),
        request.name,
        request.split,
        Known(facts["fingerprint"], statistics),
        paths,
    )


def _paths(request: Request, facts: dict[str, Any]) -> tuple[str, ...] | None:
    return facts["paths"] and tuple(_prefix(request) + path for path in facts["paths"])


def _prefix(request: Request) -> str:
    """Return what the paths of all pictures begin with, which is part of the key and not kept again."""
    return f"{str(request.place).rstrip('/')}/"


def _require_sound(images: Images, checksums: list[int], pixels: Path) -> None:
    """Raise DataError if a block of the mapped pixels is not what was written."""
    found = _checksums(images)
    if found != checksums:
        wrong = sum(a != b for a, b in zip(found, checksums, strict=False)) or abs(
            len(found) - len(checksums)
        )
        raise DataError(f"{wrong} of {len(checksums)} blocks of {pixels} are damaged")


def _checksums(images: Images) -> list[int]:
    """Return the CRC-32C of each block: 3 GB a second on one core, so pixels are checked at every opening."""
    flat = as_ragged(images).flat
    return [
        google_crc32c.value(flat[start : start + _BLOCK_BYTES]) for start in range(0, flat.size, _BLOCK_BYTES)
    ]


def _keep(request: Request, pixels: Path, pictures: Pictures) -> ImageSet:
    make_directory(pixels.parent)
    _remove_abandoned(pixels.parent)
    decoding = Decoding(pictures, request)
    needed, free = decoding.needed(), shutil.disk_usage(pixels.parent).free
    if needed > free:
        raise StorageError(
            f"{needed / 1e9:,.1f} GB of pixels do not fit {pixels.parent}, {free / 1e9:,.1f} GB are free"
        )
    replace_atomically(pixels, lambda stream: _write(stream, decoding))
    # Another process may have replaced the file, with the same pixels, since the key is the same.
    images = decoding.image_set(np.lib.format.open_memmap(pixels, mode="r").reshape(-1))
    notes, shown = decoding.notes(images), images.images
    facts = {**_facts_of(request, images, notes), "crc32c": _checksums(shown)}
    if isinstance(shown, RaggedImages):
        facts["sizes"] = [shown.heights.tolist(), shown.widths.tolist(), shown.channels]
    write_json(pixels.with_suffix(".json"), {"facts": facts, "sha256": fingerprint_json(facts)})
    for note in notes:
        request.progress.note(note)
    return images


def _facts_of(request: Request, images: ImageSet, notes: list[str]) -> dict[str, Any]:
    return {
        "source": request.name,
        "split": request.split,
        "labels": images.labels.tolist(),
        "classes": images.classes,
        "fingerprint": images.fingerprint,
        "mean": images.statistics.mean,
        "std": images.statistics.std,
        "notes": notes,
        "paths": images.paths and [path.removeprefix(_prefix(request)) for path in images.paths],
    }


def _write(stream: IO[bytes], decoding: Decoding) -> None:
    """Write an array ``(N, H, W, C)``, or ``(bytes,)`` if the pictures differ in size."""

    def write_header(shape: tuple[int, ...]) -> int:
        stream.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        return stream.tell()

    end = write_header((0,))
    for block in decoding.blocks():
        stream.write(block.data)
    assert write_header(decoding.shape()) == end, "numpy's headers have room for any of these shapes"


def _remove_abandoned(directory: Path) -> None:
    """Delete files that killed processes left; a file younger than a day may belong to a running process."""
    for leftover in directory.glob(f"*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _DAY_SECONDS:
                leftover.unlink()
