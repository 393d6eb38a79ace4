"""From a folder to an object store: an unfinished manifest, zarr.json files, shards with their records, the manifest last.

After a kill, the address holds an unfinished cache or a complete one, never a manifest that lists more than is there.
Objects that are there already are recognized by size and md5, which the store computes, and are not sent again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bancache.cache.digests import WRONG_SHA256, Digest, damaged, digest_of
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import (
    MANIFEST,
    MANIFEST_LIMIT,
    manifest_of,
    parse_manifest,
    read_manifest,
    require_local,
    unfinished,
)
from bancache.cache.reader import digests_of
from bancache.cache.records import read_records, record_index, record_key
from bancache.errors import UsageError
from bancache.remote.lease import Lease, leased
from bancache.remote.transfer import Transferred, require_same_cache, transfer_all
from bancache.system.bucket import Bucket, info_of, is_same
from bancache.system.files import json_bytes
from bancache.system.locks import HOLDER, exclusive
from bancache.system.progress import Progress
from bancache.system.signals import Interrupt
from bancache.system.wording import command

# A shard, the digests of its files, and its record if the cache is unfinished.
Part = tuple[Shard, Mapping[str, Digest], bytes | None]


class RemoteCopy:
    """A cache's copy at an address, under this process's lease; ``result`` counts what was sent so far."""

    def __init__(self, path: Path, bucket: Bucket, lease: Lease) -> None:
        """List what is at the address; nothing is sent yet."""
        self.address = bucket.address
        self._path, self._bucket, self._lease = path, bucket, lease
        self._there = {key: info for key, info in bucket.listed().items() if not key.startswith(HOLDER)}
        self.result = Transferred()

    def manifest(self) -> dict[str, Any] | None:
        """Return the content of manifest.json at the address, or None where there is nothing."""
        content = self._bucket.get(MANIFEST, MANIFEST_LIMIT)
        if content is not None:
            return parse_manifest(content, self._bucket.name(MANIFEST))
        if self._there:
            raise UsageError(f"{self.address} exists and is not a cache", hint="choose another address")
        return None

    def recorded_shards(self) -> set[int]:
        """Return the shards whose records are at the address, by their names."""
        return {index for key in self._there if (index := record_index(key)) is not None}

    def begin(self, manifest: Manifest, digests: Mapping[str, Digest] | None = None) -> None:
        """Send an unfinished manifest, if there is none, and the zarr.json files."""
        if MANIFEST not in self._there:
            self._send(MANIFEST, json_bytes(unfinished(manifest)))
        for key in Layout(manifest).metadata_keys():
            self._send(key, self._read(key, digests[key] if digests is not None else None, key))

    def send(self, part: Part) -> None:
        """Send the files of a shard, then its record if it has one."""
        shard, files, record = part
        contents = {key: self._read(key, digest, str(shard)) for key, digest in files.items()}
        record_file = record_key(shard.index)
        there = self._there.get(record_file)
        changed = not all(is_same(self._there.get(key), content) for key, content in contents.items())
        if changed and there is not None and (record is None or not is_same(there, record)):
            self._remove([record_file])  # it lists other files than the ones that are about to come
        for key, content in contents.items():
            self._send(key, content)
        if record is not None:
            self._send(record_file, record)

    def finish(self) -> None:
        """Send the manifest of a complete cache, then remove records, which it does not need."""
        self._send(MANIFEST, (self._path / MANIFEST).read_bytes())
        self._remove([record_key(index) for index in self.recorded_shards()])
        self.result.complete = True

    def forget(self, stored: dict[str, Any]) -> None:
        """Remove the files of the cache at the address and no others; its manifest says "unfinished" first."""
        manifest = manifest_of(stored)
        self._send(MANIFEST, json_bytes(unfinished(manifest)))
        chunks = tuple(f"{field.name}/c{Layout(manifest).separator}" for field in manifest.fields)
        named = {*Layout(manifest).metadata_keys(), *map(record_key, self.recorded_shards())}
        self._remove([key for key in self._there if key in named or key.startswith(chunks)])
        del self._there[MANIFEST]

    def _read(self, key: str, digest: Digest | None, name: str) -> bytes:
        try:
            content = (self._path / key).read_bytes()
        except OSError as error:
            raise damaged(name, f"it cannot be read: {error.strerror}", self._path) from error
        if digest is not None and digest_of(content) != digest:
            raise damaged(name, WRONG_SHA256, self._path)
        return content

    def _send(self, key: str, content: bytes) -> None:
        same = is_same(self._there.get(key), content)
        if not same:
            self._lease.require()
            self._bucket.put(key, content)
        self._there[key] = info_of(content)
        self.result.count(len(content), kept=same)

    def _remove(self, keys: list[str]) -> None:
        self._lease.require()
        self._bucket.delete(keys)
        for key in keys:
            del self._there[key]


def push(
    path: str | os.PathLike[str],
    bucket: Bucket,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Transferred:
    """Copy a cache, finished or not, to an object store; objects that are there already are not sent again.

    With ``overwrite``, another cache at the destination is removed. ``interrupt`` is checked after each shard.
    """
    require_local(path)
    path = Path(path)
    stored = read_manifest(path)
    # A complete cache does not change any more. An unfinished one must not be written meanwhile.
    with nullcontext() if stored["complete"] else exclusive(path), leased(bucket) as lease:
        copy = RemoteCopy(path, bucket, lease)
        if not overwrite:
            _require_fit(copy, path, stored)
        elif there := copy.manifest():
            copy.forget(there)
        _send_all(copy, path, progress, interrupt)
    return copy.result


def _send_all(
    copy: RemoteCopy, path: Path, progress: Progress | None, interrupt: Interrupt | None = None
) -> None:
    """Send everything that is missing at the address; the manifest, if the cache is complete, comes last."""
    stored = read_manifest(path)
    layout = Layout(manifest_of(stored))
    digests = digests_of(stored, layout, path / MANIFEST) if stored["complete"] else None
    if digests is None:
        parts = _recorded_parts(path, layout)
    else:
        shards = layout.shards()
        parts = [(shard, {key: digests[key] for key in layout.chunk_keys(shard)}, None) for shard in shards]
    copy.begin(layout.manifest, digests)
    largest = max(layout.chunk_bytes().values())
    transfer_all("push", copy.send, parts, largest=largest, progress=progress, interrupt=interrupt)
    if stored["complete"]:
        copy.finish()


def _require_fit(copy: RemoteCopy, path: Path, stored: dict[str, Any]) -> None:
    """Require that the address is empty or holds a copy of this cache that is not more complete."""
    there = copy.manifest()
    if there is None:
        return
    require_same_cache(copy.address, there, stored, hint="choose another address, or --overwrite")
    if there["complete"] and not stored["complete"]:
        raise UsageError(
            f"the cache at {copy.address} is complete and the one here is not",
            hint=f"{command('pull', copy.address, path)} completes it",
        )


def _recorded_parts(path: Path, layout: Layout) -> list[Part]:
    """Return the recorded shards of an unfinished cache."""
    records = read_records(path, layout)
    return [
        (layout.shard(index), record["files"], (path / record_key(index)).read_bytes())
        for index, record in records.items()
    ]
