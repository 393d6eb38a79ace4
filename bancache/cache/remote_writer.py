"""Writing a cache in an object store: shards in any order by any number of processes, the manifest last.

There are no locks, and no listing is believed longer than it takes to ask again. Each object appears whole. A chunk or a
record is created where there is none; a chunk with other bytes, which a killed process left, is replaced only while its
shard has no record; the manifest is replaced only while it is the one that this process began with. The process that
completes the cache first compares every chunk with its record: by its tag if the record has it, else by its bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from bancache.cache.digests import Digest, digest_of
from bancache.cache.files import RemoteFiles
from bancache.cache.layout import Layout, Shard, describe_arrays
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import (
    MANIFEST,
    MANIFEST_LIMIT,
    RECORDS,
    manifest_of,
    parse_manifest,
    sign,
)
from bancache.cache.records import (
    OTHERS,
    RECORD_LIMIT,
    parse_record,
    record_key,
    record_of,
    recorded_shards,
)
from bancache.cache.remote_claims import RemoteClaims
from bancache.cache.views import EncodedView, encode_shard, read_shard
from bancache.cache.writer import CacheWriter, Summarize, completed, require_whole
from bancache.errors import MismatchError, UsageError
from bancache.system.address import Address
from bancache.system.bucket import Bucket, ObjectInfo
from bancache.system.checked import json_object
from bancache.system.files import json_bytes
from bancache.system.locks import CLAIMS
from bancache.system.read_ahead import in_threads

_RECORDS_AT_ONCE = 16
# Records are listed again after a second, or after twenty times as long as that took.
_LIST_EVERY_SECONDS, _LIST_SHARE = 1.0, 20.0


class RemoteWriter:
    """A cache at an address that this process is writing, perhaps together with others; ``open_remote_writer`` makes it."""

    def __init__(self, path: Address, manifest: Manifest, tag: str, *, attending: bool = False) -> None:
        """Put the zarr.json files; ``tag`` is that of the unfinished manifest.

        With ``attending``, another process has done so and completes the cache: records are asked for one by one.
        """
        self.path, self.layout, self._tag, self._attending = path, Layout(manifest), tag, attending
        # The kind of device of this process, if it is not the one that began the cache: each of its records says so.
        self.made_on: dict[str, Any] = {}
        self._bucket, self._files = Bucket(str(path)), RemoteFiles(path)
        self.claims = RemoteClaims(self._bucket, self._has_record)
        if not attending:
            self._describe()
        self._done: set[int] = set()
        self._known: dict[int, dict[str, Any]] = {}
        self._list_at = 0.0

    @cached_property
    def _described(self) -> dict[str, bytes]:
        return describe_arrays(self.layout)

    def pending(self) -> list[Shard]:
        """Return the shards that no process has recorded, in order."""
        self._look()
        return [shard for shard in self.layout.shards() if shard.index not in self._done]

    def is_recorded(self, shard: Shard) -> bool:
        """Return whether a shard is done, by this or another process, as of a listing a moment ago."""
        if self._attending:
            return self.trust(shard)
        if shard.index not in self._done and time.monotonic() >= self._list_at:
            self._look()
        return shard.index in self._done

    def trust(self, shard: Shard) -> bool:
        """Return whether a shard's record is there, for its worker says so."""
        if shard.index not in self._done and self._has_record(shard.index):
            self._done.add(shard.index)
        return shard.index in self._done

    def is_ready(self, shard: Shard) -> bool:
        """Return whether the shard that this one is stored relative to, if there is one, is recorded."""
        required = self.layout.requires(shard)
        return required is None or self.is_recorded(required)

    def is_complete(self) -> bool:
        """Return whether another process has completed the cache; MismatchError if one has overwritten or removed it."""
        there = self._bucket.head(MANIFEST)
        if there is not None and there.tag == self._tag:
            return False
        content = self._bucket.get(MANIFEST, MANIFEST_LIMIT)
        stored = parse_manifest(content, self.path / MANIFEST) if content is not None else None
        if (
            stored is not None
            and stored["complete"]
            and manifest_of(stored).fingerprint == self.layout.manifest.fingerprint
        ):
            return True
        raise MismatchError(
            f"{self.path} was overwritten or removed while this process wrote to it",
            hint="run the same command again for the cache that is there now, or choose another --out",
        )

    def recorded(self) -> tuple[Shard, EncodedView] | None:
        """Return the first recorded shard that is not stored relative to another one, and its values; None if there is none."""
        if self._attending:
            self._look()
        for shard in self.layout.shards():
            if self.layout.requires(shard) is None and shard.index in self._done:
                record = self._record(shard.index)
                if record is not None:
                    return shard, read_shard(self._files, self.layout, shard, record["files"])
        return None

    def write_shard(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Put a shard's chunks, then its record. Several threads may do so at once.

        If another process has recorded the shard, that one stays and ``fields`` are dropped.
        """
        require_whole(self.layout, shard, fields)
        if not self._has_record(shard.index) and not self.is_complete():
            self._write(shard, fields, {**facts, "made_on": [self.made_on]} if self.made_on else facts)
        self._done.add(shard.index)
        self.claims.release(shard.index)

    def finish(self, summarize: Summarize, log: Callable[[str], object] = lambda text: None) -> bool:
        """Put the manifest that makes the cache complete, remove working objects, and return whether this call did it.

        If not, another process has completed it, or a shard's chunks are not as recorded, and the shard is pending again.
        ``log`` is that of ``CacheWriter.finish``: here nothing is read beforehand.
        """
        if self.is_complete():
            remove_working(self._bucket)
            return False
        listed = self._bucket.listed(self.layout.files() + 2 * self.layout.count + OTHERS)
        missing = [i for i in range(self.layout.count) if record_key(i) not in listed]
        records = list(in_threads(self._record, range(self.layout.count), _RECORDS_AT_ONCE))
        wrong = [
            index
            for index, record in enumerate(records)
            if index not in missing and not self._is_true(index, record, records, listed)
        ]
        if missing or wrong:
            self._bucket.delete([record_key(index) for index in wrong])
            for index in (*missing, *wrong):
                self._done.discard(index)
                self._known.pop(index, None)
            return False
        whole = [record for record in records if record is not None]
        self._describe()
        files, facts = ([record[key] for record in whole] for key in ("files", "facts"))
        stored = completed(self.layout, self._described, files, facts, summarize)
        if self._bucket.replace(MANIFEST, json_bytes(stored), self._tag) is None:
            return False
        remove_working(self._bucket)
        return True

    def _describe(self) -> None:
        """Put the zarr.json files where they are missing or differ: another version of Zarr may write them otherwise."""
        for key, content in self._described.items():
            if self._bucket.create(key, content) is None:
                self._bucket.put(key, content)

    def _look(self) -> None:
        """List the records."""
        began = time.monotonic()
        self._done = recorded_shards(self.path, self.layout)
        now = time.monotonic()
        self._list_at = now + max(_LIST_EVERY_SECONDS, _LIST_SHARE * (now - began))

    def _has_record(self, index: int) -> bool:
        return self._bucket.head(record_key(index)) is not None

    def _record(self, index: int) -> dict[str, Any] | None:
        """Return the record of a shard, or None if there is no valid one."""
        if index not in self._known:
            content = self._bucket.get(record_key(index), RECORD_LIMIT)
            record = parse_record(json_object(content), self.layout, index)
            if record is None:
                return None
            self._known[index] = record
        return self._known[index]

    def _write(self, shard: Shard, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        reference, files, tags = self._reference(shard), {}, {}
        for key, content in encode_shard(self._files, self.layout, shard, fields, reference):
            tag = self._put_chunk(shard, key, content)
            if tag is None:
                return  # another process has recorded the shard, or completed the cache
            files[key], tags[key] = digest_of(content), tag
        record = sign({**record_of(self.layout, shard, facts, files, reference), "tags": tags})
        if self._bucket.create(record_key(shard.index), json_bytes(record)) is not None:
            return
        other = self._record(shard.index)
        if other is None or other["files"] != files:
            # Its chunks were replaced by these: the shard is pending again.
            self._known.pop(shard.index, None)
            self._bucket.delete([record_key(shard.index)])

    def _put_chunk(self, shard: Shard, key: str, content: bytes) -> str | None:
        """Put a chunk and return its tag; None if other bytes are there and belong to a record."""
        while True:
            tag = self._bucket.create(key, content)
            if tag is not None:
                return tag
            there = self._bucket.head(key)
            if self._has_record(shard.index) or self.is_complete():
                return None
            if there is not None and (tag := self._bucket.replace(key, content, there.tag)):
                return tag

    def _reference(self, shard: Shard) -> dict[str, Digest]:
        """Return the digests of the files that a shard is stored relative to; usually none."""
        required = self.layout.requires(shard)
        record = self._record(required.index) if required else None
        if required is not None and record is None:
            raise UsageError(f"{shard} is written relative to {required}, which is not yet recorded")
        files: dict[str, Digest] = record["files"] if record else {}
        return files

    def _is_true(
        self,
        index: int,
        record: Mapping[str, Any] | None,
        records: list[dict[str, Any] | None],
        listed: Mapping[str, ObjectInfo],
    ) -> bool:
        """Whether a shard's chunks are as recorded; they are read only if their tags are not those in the record."""
        if record is None:
            return False
        required = self.layout.requires(self.layout.shard(index))
        base = records[required.index] if required else None
        if (base["files"] if base else {}) != record.get("reference", {}):
            return False
        tags = record.get("tags")
        tags = tags if isinstance(tags, dict) else {}
        there = {key: listed.get(key) for key in record["files"]}
        unsure = [
            (key, digest)
            for key, digest in record["files"].items()
            if (info := there[key]) is None
            or not info.tag
            or (info.size, info.tag) != (digest.size, tags.get(key))
        ]
        return not any(self._files.problems(unsure))


def remove_working(bucket: Bucket) -> None:
    """Remove what a complete cache does not need: records and claims."""
    for folder in (RECORDS, CLAIMS):
        bucket.delete(list(bucket.listed(below=folder)))


Writer = CacheWriter | RemoteWriter
