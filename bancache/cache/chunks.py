"""Chunk files: one shard of one array, encoded and decoded here, to the bytes that Zarr's codecs give.

A chunk is its values, little-endian, as one Zstandard frame (profile ``mmap``: uncompressed), followed by a CRC-32C. Zarr
reads and writes the same files. It is not used for them: it checks neither the sha256 nor the size that a frame
announces, and one view of 10,000 x 100 codes takes 2.5 to 3.5 ms through Zarr, 1.7 ms here (mapped: 2.5 and 0.1 ms).
"""

from __future__ import annotations

from typing import Any

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

CHECKSUM_BYTES = 4


def encode_chunk(values: NDArray[Any], rows: int, level: int | None) -> bytes:
    """Return a chunk file of ``rows`` samples: ``values``, then zeros for missing rows; not compressed if ``level`` is None."""
    dtype = values.dtype.newbyteorder("<")
    missing = np.zeros((rows - len(values), *values.shape[1:]), dtype)
    whole = (
        np.concatenate([values, missing], dtype=dtype) if len(missing) else values.astype(dtype, copy=False)
    )
    whole = np.ascontiguousarray(whole)
    body = whole.tobytes() if level is None else bytes(numcodecs.Zstd(level=level).encode(whole))
    return body + int(google_crc32c.value(body)).to_bytes(CHECKSUM_BYTES, "little")


def decode_chunk(content: bytes, rows: NDArray[Any], *, chunk_bytes: int) -> str | None:
    """Fill ``rows``, contiguous and little-endian, with the first values of a compressed chunk of ``chunk_bytes``.

    Returns what is wrong with the chunk, or None.
    """
    whole = rows if rows.nbytes == chunk_bytes else np.empty(chunk_bytes, np.uint8)
    problem = _decode(content, whole)
    if problem is None and whole is not rows:
        rows.view(np.uint8).reshape(-1)[:] = whole[: rows.nbytes]
    return problem


def _decode(content: bytes, out: NDArray[Any]) -> str | None:
    announced = frame_bytes(content[:18])
    if announced != out.nbytes:
        return f"it would unfold to {announced or 'unknown'} bytes instead of {out.nbytes:,}"
    frame, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if google_crc32c.value(frame) != int.from_bytes(checksum, "little"):
        return "its CRC-32C is another"
    try:
        numcodecs.Zstd().decode(frame, out)
    except (ValueError, RuntimeError) as error:
        return f"it cannot be unfolded: {' '.join(str(error).split())}"
    return None


def frame_bytes(start: bytes) -> int | None:
    """Return the decoded size that a Zstandard frame announces (RFC 8878, 3.1.1), or None.

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
