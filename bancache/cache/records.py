"""Which shards are done: one record a shard, durable after its files, with their sizes and digests.

A record of this process, or one whose files it has read, is known to hold. Those of others are taken for true
while they work and read before anybody vouches for them.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from bancache.cache.digests import Digest, Mark, inspect_file, parse_digests
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import RECORDS, is_sealed, seal
from bancache.errors import CacheDamagedError
from bancache.system.files import make_directory, read_json, storage_errors, sync_directory, write_json

RECORD_LIMIT = 1 << 20
_NAME = re.compile(r"\d{6}\.json")


class Records:
    """The records of one unfinished cache."""

    def __init__(self, cache: Path, layout: Layout, promise: str) -> None:
        """Open the folder of records, or make it; ``promise`` is the digest that all of them must carry."""
        self._cache, self._layout, self._promise = cache, layout, promise
        self._found: dict[int, dict[str, Any]] = {}
        self._marks: dict[int, dict[str, Mark]] = {}  # of shards whose files were written or read whole here
        make_directory(cache / RECORDS)

    def write(
        self,
        shard: Shard,
        facts: dict[str, Any],
        files: dict[str, Digest],
        marks: dict[str, Mark],
        reference: dict[str, Digest],
    ) -> None:
        """Record a shard whose files are on disk, with the files of another that it is stored relative to."""
        rows = shard.stop - shard.start
        body = {
            "promise": self._promise,
            "region": shard.index,
            "rows": rows,
            "files": files,
            "facts": facts,
        }
        if reference:
            body["reference"] = reference
        write_json(self._path(shard.index), seal(body))
        self._found[shard.index], self._marks[shard.index] = body, marks

    def flush(self) -> None:
        """Make sure that the records that are there are on disk; their makers may have died just before."""
        with storage_errors(self._cache), contextlib.suppress(FileNotFoundError):
            sync_directory(self._cache / RECORDS)

    def __contains__(self, index: int) -> bool:
        """Return whether a shard is recorded, here or by another process."""
        return index in self._found or self._learn(index)

    def missing(self) -> list[int]:
        """Return the shards that nobody has recorded, in order."""
        for index in self._on_disk() - set(self._found):
            self._learn(index)
        return [index for index in range(self._layout.count) if index not in self._found]

    def files(self, index: int) -> dict[str, Digest]:
        """Return the digests of a recorded shard's files."""
        files: dict[str, Digest] = self._found[index]["files"]
        return files

    def all(self) -> list[dict[str, Any]]:
        """Return all records in the order of their shards, none of which may be missing."""
        return [self._found[index] for index in range(self._layout.count)]

    def confirm(self) -> bool:
        """Read what is recorded and was not written or read here, and return whether all of it is as recorded.

        The records that are wrong are removed. Nobody else may be writing.
        """
        sound = True
        # In order: what a shard is stored relative to has a smaller index, and is known to hold by then or not.
        for index in sorted(self._on_disk() | set(self._found)):
            if self._holds(index) and self._is_based(index):
                continue
            sound = False
            self._found.pop(index, None)
            self._marks.pop(index, None)
            if self._path(index).is_symlink() or self._path(index).is_file():
                with storage_errors(self._path(index)):
                    self._path(index).unlink()
        return sound

    def _holds(self, index: int) -> bool:
        """Whether a shard is as recorded; a read is far cheaper than a teacher's answer."""
        if self._is_untouched(index):
            return True
        record = self._read(index)
        files: dict[str, Digest] = record["files"] if record else {}
        if record is None or any(inspect_file(self._cache, *item) is not None for item in files.items()):
            return False
        self._found[index] = record
        self._marks[index] = {key: Mark.of((self._cache / key).lstat()) for key in files}
        return True

    def _is_based(self, index: int) -> bool:
        """Whether the shard that this one is stored relative to is still the one that it was written from."""
        required = self._layout.requires(self._layout.shard(index))
        base = self._found.get(required.index, {}).get("files") if required else {}
        return bool(base == self._found[index].get("reference", {}))

    def _is_untouched(self, index: int) -> bool:
        """Whether a shard's files are still those that were written or read whole here."""
        with contextlib.suppress(OSError):
            marks = self._marks.get(index, {})
            return bool(marks) and all(Mark.of((self._cache / k).lstat()) == m for k, m in marks.items())
        return False

    def _learn(self, index: int) -> bool:
        """Take a record that says what it should for true, without a look at what it records."""
        record = self._read(index)
        if record is not None:
            self._found[index] = record
        return record is not None

    def _read(self, index: int) -> dict[str, Any] | None:
        return read_record(self._cache, self._layout, self._promise, index)

    def _on_disk(self) -> set[int]:
        return _on_disk(self._cache, self._layout)

    def _path(self, index: int) -> Path:
        return _path(self._cache, index)


def read_records(cache: Path, layout: Layout, promise: str) -> dict[int, dict[str, Any]]:
    """Return the records of an unfinished cache, by shard; what they record is not looked at."""
    found = {i: read_record(cache, layout, promise, i) for i in sorted(_on_disk(cache, layout))}
    return {index: record for index, record in found.items() if record is not None}


def read_record(cache: Path, layout: Layout, promise: str, index: int) -> dict[str, Any] | None:
    """Return the record of a shard, its files and its reference's as digests; None where there is anything else."""
    try:
        record = read_json(_path(cache, index), limit=RECORD_LIMIT, error=CacheDamagedError)
    except CacheDamagedError:
        return None
    return parse_record(record, layout, promise, index)


def parse_record(record: Any, layout: Layout, promise: str, index: int) -> dict[str, Any] | None:
    """Return some JSON values as the record of a shard, as ``read_record`` does, or None."""
    if not isinstance(record, dict) or not is_sealed(record) or "facts" not in record:
        return None
    if record.get("promise") != promise or type(record.get("region")) is not int:
        return None
    shard = layout.shard(index)
    required = layout.requires(shard)
    files = parse_digests(record.get("files"), layout.chunk_keys(shard))
    reference = parse_digests(record.get("reference", {}), layout.chunk_keys(required) if required else [])
    if files is None or reference is None or record["region"] != index:
        return None
    return {**record, "files": files, "reference": reference}


def _on_disk(cache: Path, layout: Layout) -> set[int]:
    """Return the shards whose records there are by their names."""
    with storage_errors(cache), contextlib.suppress(FileNotFoundError):
        names = (file.name for file in (cache / RECORDS).iterdir())
        found = {int(name[:6]) for name in names if _NAME.fullmatch(name)}
        return {index for index in found if index < layout.count}
    return set()  # another process has finished and removed them


def record_key(index: int) -> str:
    """Return where the record of a shard lies, relative to the store."""
    return f"{RECORDS}/{index:06d}.json"


def record_index(key: str) -> int | None:
    """Return the shard whose record lies at a key, or None."""
    folder, _, name = key.rpartition("/")
    return int(name[:6]) if folder == RECORDS and _NAME.fullmatch(name) else None


def _path(cache: Path, index: int) -> Path:
    return cache / record_key(index)
