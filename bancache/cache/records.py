"""Records: which shards are done. One file a shard, durable after the shard's files, with their sizes and digests.

A record that this process or a worker of it wrote, or whose files it has read, is known to be true. Records of others, and of
earlier processes, are believed while the cache is being written if their files have the recorded sizes. Each of these files
is read once, before the last manifest lists them: a dump that goes on does not begin by reading terabytes.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from bancache.cache.digests import Digest, Mark, digests_for, inspect_file, inspect_size
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest_io import RECORDS, is_signed, sign
from bancache.cache.schema import Record
from bancache.errors import CacheDamagedError
from bancache.system.address import Address
from bancache.system.bucket import Bucket
from bancache.system.checked import checked
from bancache.system.files import (
    files_below,
    make_directory,
    read_json,
    storage_errors,
    sync_directory,
    write_json,
)

RECORD_LIMIT = 1 << 20
# Of other files at an address, so many are listed.
OTHERS = 1000
_NAME = re.compile(r"\d{6}\.json")


class Records:
    """The records of one unfinished cache.

    Their facts stay on disk until ``facts`` is asked: those of thirty thousand shards are half a gigabyte of objects.
    """

    def __init__(self, cache: Path, layout: Layout, *, make: bool = True) -> None:
        """Open the folder of records, or ``make`` it."""
        self._cache, self._layout = cache, layout
        self._found: dict[int, _Files] = {}
        self._marks: dict[int, dict[str, Mark]] = {}  # of shards whose files this process wrote or read whole
        if make:
            make_directory(cache / RECORDS)

    def write(
        self,
        shard: Shard,
        facts: dict[str, Any],
        files: dict[str, Digest],
        marks: dict[str, Mark],
        reference: dict[str, Digest],
    ) -> None:
        """Record a shard whose files are on disk; ``reference`` has the files that it is stored relative to."""
        body = record_of(self._layout, shard, facts, files, reference)
        write_json(self._cache / record_key(shard.index), sign(body))
        self._found[shard.index], self._marks[shard.index] = _Files(files, reference), marks

    def flush(self) -> None:
        """Flush the folder of records: another process may have been killed before it did."""
        with storage_errors(self._cache), contextlib.suppress(FileNotFoundError):
            sync_directory(self._cache / RECORDS)

    def __contains__(self, index: int) -> bool:
        """Return whether a shard is recorded, by this or another process; its files are not read."""
        if index not in self._found and (record := read_record(self._cache, self._layout, index)) is not None:
            self._found[index] = _Files(record["files"], record["reference"])
        return index in self._found

    def trust(self, index: int) -> bool:
        """Believe a record as if this process had written it: its own worker did. Return whether it is there."""
        if index not in self:
            return False
        with contextlib.suppress(OSError):
            marks = {key: Mark.of((self._cache / key).lstat()) for key in self.files(index)}
            if all(mark.size == self.files(index)[key].size for key, mark in marks.items()):
                self._marks[index] = marks  # else its files are read in the end
        return True

    def missing(self) -> list[int]:
        """Return the shards without a record, in order."""
        on_disk = _on_disk(self._cache, self._layout)
        done = {index for index in on_disk | set(self._found) if index in self}
        return [index for index in range(self._layout.count) if index not in done]

    def files(self, index: int) -> dict[str, Digest]:
        """Return the digests of a recorded shard's files."""
        return self._found[index].files

    def facts(self) -> Facts:
        """Return the facts of all shards, in order; none may be missing."""
        return Facts(self._cache, self._layout)

    @property
    def unread(self) -> int:
        """Number of known shards whose files this process has neither written nor read."""
        return len(self._found.keys() - self._marks.keys())

    def look(self) -> None:
        """Remove records whose files do not have the recorded sizes; read those that a shard yet to come is relative to."""
        self.confirm(read=())
        required = {self._layout.requires(self._layout.shard(index)) for index in self.missing()}
        if read := {shard.index for shard in required if shard is not None}:
            self.confirm(read=read)

    def confirm(self, *, read: Container[int] | None = None) -> bool:
        """Read the files of other processes' records, remove false records, and return whether there was none.

        With ``read``, only the files of these shards are read, and of all others the sizes are compared.
        """
        intact = True
        # In order: a shard that others are stored relative to comes before them.
        for index in sorted(_on_disk(self._cache, self._layout) | set(self._found)):
            if self._is_true(index, read=read is None or index in read) and self._is_based(index):
                continue
            intact = False
            self._found.pop(index, None)
            self._marks.pop(index, None)
            path = self._cache / record_key(index)
            if path.is_symlink() or path.is_file():
                with storage_errors(path):
                    path.unlink()
        return intact

    def _is_true(self, index: int, *, read: bool) -> bool:
        """Whether a shard's files are as recorded, by their content or only by their sizes."""
        with contextlib.suppress(OSError):
            marks = self._marks.get(index, {})
            if marks and all(Mark.of((self._cache / key).lstat()) == mark for key, mark in marks.items()):
                return True  # still the files that this process wrote or read
        record = read_record(self._cache, self._layout, index)
        if record is None:
            return False
        found = _Files(record["files"], record["reference"])
        inspect = inspect_file if read else _inspect_size
        if any(inspect(self._cache, *item) is not None for item in found.files.items()):
            return False
        self._found[index] = found
        if read:
            self._marks[index] = {key: Mark.of((self._cache / key).lstat()) for key in found.files}
        return True

    def _is_based(self, index: int) -> bool:
        """Whether the shard that this one is stored relative to has the same files as when this one was written."""
        required = self._layout.requires(self._layout.shard(index))
        if required is None:
            return True
        return required.index in self._found and self.files(required.index) == self._found[index].reference


class _Files(NamedTuple):
    """The digests of a shard's files, and of those that it is stored relative to."""

    files: dict[str, Digest]
    reference: dict[str, Digest]


class Facts(Sequence[dict[str, Any]]):
    """The facts in the records of all shards, in order, each read when it is asked for."""

    def __init__(self, cache: Path, layout: Layout) -> None:
        self._cache, self._layout = cache, layout

    def __len__(self) -> int:
        return self._layout.count

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return the facts of one shard, or of some."""
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        shard = range(len(self))[index]
        record = read_record(self._cache, self._layout, shard)
        if record is None:
            raise CacheDamagedError(
                f"{self._cache / record_key(shard)} was removed or changed after it was read",
                hint="run the same command again; it writes that shard again",
            )
        facts: dict[str, Any] = record["facts"]
        return facts


def record_of(
    layout: Layout,
    shard: Shard,
    facts: dict[str, Any],
    files: dict[str, Digest],
    reference: dict[str, Digest],
) -> dict[str, Any]:
    """Return the values of a shard's record, without their digest."""
    body = {
        "promise": layout.manifest.fingerprint,
        "region": shard.index,
        "rows": shard.stop - shard.start,
        "files": files,
        "facts": facts,
    }
    return {**body, "reference": reference} if reference else body


def read_records(cache: Path, layout: Layout) -> dict[int, dict[str, Any]]:
    """Return an unfinished cache's records by shard, without reading their files."""
    found = {index: read_record(cache, layout, index) for index in sorted(_on_disk(cache, layout))}
    return {index: record for index, record in found.items() if record is not None}


def read_record(cache: Path, layout: Layout, index: int) -> dict[str, Any] | None:
    """Return the record of a shard, or None if there is no valid one."""
    try:
        record = read_json(cache / record_key(index), limit=RECORD_LIMIT, error=CacheDamagedError)
    except CacheDamagedError:
        return None
    return parse_record(record, layout, index)


def parse_record(record: Any, layout: Layout, index: int) -> dict[str, Any] | None:
    """Return JSON values as a shard's record, with ``files`` and ``reference`` as digests, or None if they are none."""
    try:
        found = checked(record, Record, name="record", error=CacheDamagedError)
    except CacheDamagedError:
        return None
    if found.promise != layout.manifest.fingerprint or found.region != index or not is_signed(record):
        return None
    shard = layout.shard(index)
    required = layout.requires(shard)
    files = digests_for(found.files, layout.chunk_keys(shard))
    reference = digests_for(found.reference, layout.chunk_keys(required) if required else [])
    if files is None or reference is None:
        return None
    return {**record, "files": files, "reference": reference}


def recorded_shards(cache: Path, layout: Layout) -> set[int]:
    """Return the shards of an unfinished cache that are done; at an address, by the names of their records."""
    if not isinstance(cache, Address):
        return set(read_records(cache, layout))
    found = map(record_index, Bucket(str(cache)).listed(layout.count + OTHERS, below=RECORDS))
    return {index for index in found if index is not None and index < layout.count}


def count_records(cache: Path) -> int:
    """Return the number of records of an unfinished cache, by their names."""
    if isinstance(cache, Address):
        return sum(record_index(key) is not None for key in Bucket(str(cache)).listed(below=RECORDS))
    return sum(file.suffix == ".json" for file in files_below(cache / RECORDS))


def record_key(index: int) -> str:
    """Return the file of a shard's record, relative to the cache's directory."""
    return f"{RECORDS}/{index:06d}.json"


def record_index(key: str) -> int | None:
    """Return the shard whose record has this file, or None."""
    folder, _, name = key.rpartition("/")
    return int(name[:6]) if folder == RECORDS and _NAME.fullmatch(name) else None


def _inspect_size(cache: Path, key: str, digest: Digest) -> str | None:
    """Do the part of ``inspect_file`` that costs nothing."""
    return inspect_size(cache, key, digest.size)


def _on_disk(cache: Path, layout: Layout) -> set[int]:
    """Return the shards that have a file for a record, by its name."""
    with storage_errors(cache), contextlib.suppress(FileNotFoundError):
        found = {record_index(f"{RECORDS}/{file.name}") for file in (cache / RECORDS).iterdir()}
        return {index for index in found if index is not None and index < layout.count}
    return set()  # another process has completed the cache and removed them
