"""Pieces of one object in a store, by range requests; what is read in runs is kept for a while."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from bancache.errors import DataError
from bancache.system.bucket import Bucket

_BLOCK_BYTES = 1 << 20
_KEPT_BLOCKS = 64
_RECENT_BLOCKS = 16


class ObjectParts:
    """An object such as ``s3://bucket/train.pack``, as a ``ByteSource``.

    A piece is asked for alone. Where one lies beside a piece that was read lately, the whole block of a megabyte is fetched,
    since more of it will be wanted; at most 64 of them are kept.
    """

    near = False

    def __init__(self, address: str, name: str) -> None:
        """Name an object; credentials, region and endpoint come from the ``AWS_`` variables."""
        folder, _, self._key = address.rpartition("/")
        self.name, self._address, self._bucket = name, address, Bucket(folder)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._recent: deque[int] = deque(maxlen=_RECENT_BLOCKS)
        self._lock = threading.Lock()
        self._fetching: dict[int, threading.Lock] = {}

    @functools.cached_property
    def _size(self) -> int:
        found = self._bucket.head(self._key)
        if found is None:
            raise self._missing()
        return found.size

    def size(self) -> int:
        """Return how many bytes it had when it was first asked for."""
        return self._size

    def read(self, start: int, length: int) -> NDArray[np.uint8]:
        """Return some bytes as ``ByteSource`` does.

        Raises:
            DataError: There is no such object, or it is shorter.
            StorageError: The store keeps failing.
        """
        if start + length > self._size:
            raise DataError(
                f"{self.name} ends before byte {start + length:,}", hint="it was cut; copy it again"
            )
        first, last = start // _BLOCK_BYTES, (start + max(length, 1) - 1) // _BLOCK_BYTES
        if not self._is_run(first, last):
            return np.frombuffer(bytearray(self._part(start, length)), np.uint8)
        blocks = b"".join(self._block(number) for number in range(first, last + 1))
        begin = start - first * _BLOCK_BYTES
        return np.frombuffer(bytearray(blocks[begin : begin + length]), np.uint8)

    def rewrite(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces as ``ByteSource`` does: all are held, and the whole object is put anew with them, as one change."""
        held = sorted(pieces)
        if held:
            self._bucket.put_streamed(self._key, lambda: self._with(held), self._size)
            self.close()

    def _with(self, pieces: list[tuple[int, bytes]]) -> Iterator[bytes]:
        """Yield the object block by block with some pieces, none over another, in place of its own."""
        for block in range(0, self._size, _BLOCK_BYTES):
            found = bytearray(self._part(block, min(_BLOCK_BYTES, self._size - block)))
            for start, data in pieces:
                first, last = max(start, block), min(start + len(data), block + len(found))
                if first < last:
                    found[first - block : last - block] = data[first - start : last - start]
            yield bytes(found)

    def __reduce__(self) -> tuple[type[ObjectParts], tuple[str, str]]:
        """Name it again in another process."""
        return ObjectParts, (self._address, self.name)

    def close(self) -> None:
        """Forget what was kept."""
        with self._lock:
            self._kept.clear()
            self._recent.clear()

    def _is_run(self, first: int, last: int) -> bool:
        with self._lock:
            near = any(number in self._kept or number in self._recent for number in (first - 1, first))
            self._recent.extend(number for number in (first, last) if number not in self._recent)
        return near and last - first < _KEPT_BLOCKS // 4

    def _block(self, number: int) -> bytes:
        with self._lock:
            fetching = self._fetching.setdefault(number, threading.Lock())
        with fetching:  # two threads that want one block ask for it once
            with self._lock:
                if (found := self._kept.get(number)) is not None:
                    self._kept.move_to_end(number)
                    return found
            start = number * _BLOCK_BYTES
            found = self._part(start, min(_BLOCK_BYTES, self._size - start))
            with self._lock:
                self._kept[number] = found
                self._fetching.pop(number, None)
                while len(self._kept) > _KEPT_BLOCKS:
                    self._kept.popitem(last=False)
        return found

    def _part(self, start: int, length: int) -> bytes:
        found = self._bucket.part(self._key, start, length)
        if found is None:
            raise self._missing()
        return found

    def _missing(self) -> DataError:
        return DataError(f"{self.name} does not exist", hint="check the address, or name another with --data")
