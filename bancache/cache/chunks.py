"""Chunks of a compressed cache: bytes that are what the manifest says before anything unfolds them.

A chunk is a Zstandard frame of its values, little-endian, with the frame's CRC-32C behind it (docs/format.md). How it
is laid out and coded follows from the manifest alone; no description on the disk is believed. Zarr reads the same
files, at several times the time for a slab (docs/log.md).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

from bancache.cache.digests import Digest, damaged, inspect_size

_CHECKSUM_BYTES = 4


class Chunk(NamedTuple):
    """What a reader knows of a chunk's file before it looks at it.

    Attributes:
        key: Its name, relative to the store.
        digest: What it is.
        decoded: How many bytes its frame unfolds to.
        shard: What to call it when it is damaged.
    """

    key: str
    digest: Digest
    decoded: int
    shard: str


def read_into(root: Path, chunk: Chunk, rows: NDArray[Any]) -> None:
    """Fill ``rows`` with the first values of a chunk.

    Args:
        root: The store's directory.
        chunk: Which.
        rows: Contiguous, little-endian, of as many bytes as the chunk unfolds to or, at an array's edge, fewer.

    Raises:
        CacheDamagedError: It is missing or not as written; the message names its shard.
    """
    content = _checked(root, chunk)
    whole = rows if rows.nbytes == chunk.decoded else np.empty(chunk.decoded, np.uint8)
    frame, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    problem = None
    if google_crc32c.value(frame) != int.from_bytes(checksum, "little"):
        problem = "its CRC-32C is another"
    else:
        try:
            numcodecs.Zstd().decode(frame, whole)
        except (ValueError, RuntimeError) as error:
            problem = f"it cannot be unfolded: {' '.join(str(error).split())}"
    if problem is not None:
        raise damaged(chunk.shard, problem, root)
    if whole is not rows:
        rows.view(np.uint8).reshape(-1)[:] = whole[: rows.nbytes]


def _checked(root: Path, chunk: Chunk) -> bytes:
    """Return a chunk's bytes as they were written."""
    try:
        problem = inspect_size(root, chunk.key, chunk.digest.size)
        if problem is None:
            content = (root / chunk.key).read_bytes()
            problem = _inspect_content(content, chunk)
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    if problem is not None:
        raise damaged(chunk.shard, problem, root)
    return content


def _inspect_content(content: bytes, chunk: Chunk) -> str | None:
    """Say what is wrong with a chunk's bytes, or None."""
    if hashlib.sha256(content).hexdigest() != chunk.digest.sha256:
        return "its sha256 is not the one written"
    found = frame_bytes(content[:18])
    if found != chunk.decoded:
        return f"it would unfold to {found or 'unknown'} bytes instead of {chunk.decoded:,}"
    return None


def frame_bytes(start: bytes) -> int | None:
    """Return the size that a Zstandard frame says it unfolds to (RFC 8878, 3.1.1), or None.

    The decoder allocates that much before it decodes anything, and refuses to write more.

    >>> import numcodecs
    >>> frame_bytes(numcodecs.Zstd().encode(bytes(70_000)))
    70000
    """
    if len(start) < 5 or start[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flags = start[4]
    single_segment = flags >> 5 & 1
    width = (single_segment, 2, 4, 8)[flags >> 6]
    begin = 6 - single_segment + (0, 1, 2, 4)[flags & 3]
    field = start[begin : begin + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)
