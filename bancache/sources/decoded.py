"""A cache of decoded pixels in memory-mapped files, so that a second start neither decodes nor hashes.

Each split has two files: ``KEY.npy`` with the pixels and ``KEY.json`` with everything else. KEY is a hash of the path
of the source, the image size, and the name, size and modification time of every source file, so a changed source
gets another key. Old files, or the whole directory, may be deleted at any time. The JSON is written last and records
size and modification time of the pixel file. While both match, the pixels are trusted. If they differ (a copied
directory, a damaged disk), the pixels are hashed and, if the hash is wrong, decoded again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError, StorageError, UsageError
from bancache.sources.image_set import ImageSet, Known, Statistics, fingerprint_images
from bancache.sources.pictures import Pictures, Shape, decode_in_memory, pixel_blocks, pixel_shape
from bancache.sources.request import Request
from bancache.system.files import TEMPORARY_SUFFIX, make_directory, read_json, replace_atomically, write_json
from bancache.system.fingerprint import fingerprint_json, short

# Part of every key: increase it when the decoder gives other pixels for the same picture, or the JSON changes.
DECODER_VERSION = 1

_LARGEST_JSON = 1 << 30
_DAY_SECONDS = 86400


def open_kept(request: Request, files: Sequence[Path], read: Callable[[], Pictures]) -> ImageSet:
    """Map the pixels that an earlier call kept, or decode and keep them now.

    If they cannot be kept, they are decoded into memory and a progress note says so.

    Args:
        request: Source, split and image size.
        files: All files that the result depends on; only names, sizes and times are read.
        read: Returns the pictures; called only if they must be decoded.
    """
    directory = request.cache_dir or default_directory()
    pixels = directory / f"{_key(request, files)}.npy"
    kept = _open(request, pixels)
    if kept is not None:
        return kept
    pictures = read()
    try:
        return _keep(request, pixels, pictures)
    except (
        StorageError,
        UsageError,
        OSError,
    ) as error:  # reading raises DataError, so these come from writing
        request.progress.note(f"decoded pixels of {request.name} are not kept: {error}")
        return decode_in_memory(request, pictures)


def default_directory() -> Path:
    """Return ``bancache/decoded`` in the user's cache directory.

    Raises:
        UsageError: The user has no home directory.
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # its specification says to ignore a relative path
        return configured / "bancache" / "decoded"
    try:
        return Path.home() / ".cache" / "bancache" / "decoded"
    except RuntimeError as error:
        raise UsageError(
            "there is no home directory for decoded pixels", hint="set XDG_CACHE_HOME to a directory"
        ) from error


def _key(request: Request, files: Sequence[Path]) -> str:
    place = request.place
    states = [(file, file.stat()) for file in files]
    identity = {
        "decoder": DECODER_VERSION,
        "kind": request.kind,
        "place": str(place),
        "split": request.split,
        "image_size": request.image_size,
        "files": [[str(file.relative_to(place)), s.st_size, s.st_mtime_ns] for file, s in states],
    }
    return fingerprint_json(identity)[:32]


def _open(request: Request, pixels: Path) -> ImageSet | None:
    try:
        if not pixels.with_suffix(".json").exists():
            return None
        facts = read_json(pixels.with_suffix(".json"), limit=_LARGEST_JSON, error=DataError)
        images = _image_set(request, pixels, facts)
        if _state(pixels) != {"bytes": facts["bytes"], "mtime_ns": facts["mtime_ns"]}:
            _prove(images, pixels, facts)
    except (DataError, OSError, ValueError, KeyError, TypeError) as error:
        request.progress.note(f"decoded pixels of {request.name} are made anew: {error}")
        return None
    return images


def _image_set(request: Request, pixels: Path, facts: dict[str, Any]) -> ImageSet:
    statistics = Statistics(tuple(facts["mean"]), tuple(facts["std"]))
    return ImageSet(
        np.lib.format.open_memmap(pixels, mode="r"),
        np.array(facts["labels"], np.int64),
        tuple(facts["classes"]),
        request.name,
        request.split,
        Known(facts["fingerprint"], statistics),
    )


def _prove(images: ImageSet, pixels: Path, facts: dict[str, Any]) -> None:
    """Hash pixels whose size or time changed; if the hash is right, record the new size and time."""
    state = _state(pixels)
    found = fingerprint_images(images.images, images.labels, images.classes)
    if found != images.fingerprint:
        raise DataError(f"{pixels} was written as {short(images.fingerprint)}, but holds {short(found)}")
    with contextlib.suppress(
        StorageError, UsageError
    ):  # in a read-only directory they are hashed again next time
        write_json(pixels.with_suffix(".json"), {**facts, **state})


def _keep(request: Request, pixels: Path, pictures: Pictures) -> ImageSet:
    make_directory(pixels.parent)
    _remove_abandoned(pixels.parent)
    shape = pixel_shape(pictures, request)
    replace_atomically(pixels, lambda stream: _write(stream, shape, pixel_blocks(pictures, shape, request)))
    # Another process may have replaced the file, with the same pixels, since the key is the same.
    state = _state(pixels)
    mapped = np.lib.format.open_memmap(pixels, mode="r")
    images = ImageSet(mapped, pictures.labels, pictures.classes, request.name, request.split)
    facts = {
        "source": request.name,
        "split": request.split,
        "labels": images.labels.tolist(),
        "classes": images.classes,
        "fingerprint": images.fingerprint,
        "mean": images.statistics.mean,
        "std": images.statistics.std,
    }
    write_json(pixels.with_suffix(".json"), {**facts, **state})
    return images


def _write(stream: IO[bytes], shape: Shape, blocks: Iterator[NDArray[np.uint8]]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in blocks:
        stream.write(block.data)


def _state(pixels: Path) -> dict[str, int]:
    state = pixels.stat()
    return {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}


def _remove_abandoned(directory: Path) -> None:
    """Delete files that killed processes left; a file younger than a day may belong to a running process."""
    for leftover in directory.glob(f"*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _DAY_SECONDS:
                leftover.unlink()
