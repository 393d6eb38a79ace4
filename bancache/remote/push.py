"""From a folder to an object store: what describes the cache, shards with their records, the manifest last.

Killed at any instant, what lies there is an unfinished cache or a complete one, never one that claims more than it has.
What is there already is known by size and md5, which the store computed from what it received, and is not sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bancache.cache.digests import Digest, damaged, digest_of
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import (
    MANIFEST,
    MANIFEST_LIMIT,
    parse_manifest,
    read_manifest,
    unfinished,
)
from bancache.cache.reader import digests_of
from bancache.cache.records import read_records, record_index, record_key
from bancache.errors import MismatchError, UsageError
from bancache.remote.bucket import Bucket, entry_of, is_same
from bancache.remote.hold import Hold, held
from bancache.remote.many import at_once, each
from bancache.system.files import json_bytes
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.locks import HOLDER, exclusive
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt

Part = tuple[Shard, Mapping[str, Digest], bytes | None]


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        complete: Whether a complete cache lies there now.
        sent: Objects that were sent.
        kept: Objects that were there as they should be.
        bytes: Of what was sent.
    """

    complete: bool
    sent: int
    kept: int
    bytes: int


class Copy:
    """A cache's copy in a bucket, under this process's hold."""

    def __init__(self, path: Path, bucket: Bucket, hold: Hold) -> None:
        """Look at what is there; nothing is sent yet.

        Raises:
            StorageError: The store fails.
        """
        self._path, self._bucket, self._hold = path, bucket, hold
        self._there = {key: entry for key, entry in bucket.listed().items() if not key.startswith(HOLDER)}
        self._counting = threading.Lock()
        self.sent = self.kept = self.bytes = 0

    def manifest(self) -> dict[str, Any] | None:
        """Return what the manifest there says, or None where there is nothing.

        Raises:
            CacheDamagedError: It is not a cache's manifest.
            MismatchError: It was written by a newer format.
            UsageError: There is something, and it is not a cache.
        """
        content = self._bucket.get(MANIFEST, MANIFEST_LIMIT)
        if content is not None:
            return parse_manifest(content, self._bucket.name(MANIFEST))
        if self._there:
            raise UsageError(
                f"{self._bucket.address} exists and is not a cache", hint="choose another address"
            )
        return None

    def records(self) -> set[int]:
        """Return the shards whose records are there, by their names."""
        return {index for key in self._there if (index := record_index(key)) is not None}

    def begin(self, manifest: Manifest, digests: Mapping[str, Digest] | None = None) -> None:
        """Put what a cache begins with: a manifest that says that it is unfinished, and what describes its arrays.

        Raises:
            CacheDamagedError: A description is not what ``digests``, those of a complete cache, say.
        """
        if MANIFEST not in self._there:
            self._send(MANIFEST, json_bytes(unfinished(manifest)))
        for key in Layout(manifest).metadata_keys():
            digest = digests[key] if digests is not None else None
            self._send(key, self._read(key, digest, key))

    def shard(self, shard: Shard, files: Mapping[str, Digest], record: bytes | None) -> None:
        """Put the files of a shard, then its record if it has one.

        Raises:
            CacheDamagedError: A file here is not as written; nothing of it is sent.
            BusyError: The address is held by another process now.
            StorageError: The store fails.
        """
        contents = {key: self._read(key, digest, str(shard)) for key, digest in files.items()}
        key = record_key(shard.index)
        there = self._there.get(key)
        changes = not all(is_same(self._there.get(name), content) for name, content in contents.items())
        if changes and there is not None and (record is None or not is_same(there, record)):
            self._remove([key])  # it tells of other files than those that are about to come
        for name, content in contents.items():
            self._send(name, content)
        if record is not None:
            self._send(key, record)

    def finish(self) -> None:
        """Put the manifest of a complete cache, then remove records, which it does not need."""
        self._send(MANIFEST, (self._path / MANIFEST).read_bytes())
        self._remove([key for key in self._there if record_index(key) is not None])

    def forget(self, kept: Manifest) -> None:
        """Remove what the cache there consists of and nothing else; it first says that it is unfinished."""
        self._send(MANIFEST, json_bytes(unfinished(kept)))
        layout, folders = Layout(kept), tuple(f"{field.name}/c/" for field in kept.fields)
        named = {*layout.metadata_keys(), *map(record_key, self.records())}
        self._remove([key for key in self._there if key in named or key.startswith(folders)])
        del self._there[MANIFEST]

    def _read(self, key: str, digest: Digest | None, name: str) -> bytes:
        try:
            content = (self._path / key).read_bytes()
        except OSError as error:
            raise damaged(name, f"it cannot be read: {error.strerror}", self._path) from error
        if digest is not None and digest_of(content) != digest:
            raise damaged(name, "its sha256 is not the one written", self._path)
        return content

    def _send(self, key: str, content: bytes) -> None:
        same = is_same(self._there.get(key), content)
        if not same:
            self._hold.require()
            self._bucket.put(key, content)
        with self._counting:
            self._there[key] = entry_of(content)
            self.sent, self.kept = self.sent + (not same), self.kept + same
            self.bytes += 0 if same else len(content)

    def _remove(self, keys: list[str]) -> None:
        self._hold.require()
        self._bucket.delete(keys)
        with self._counting:
            for key in keys:
                del self._there[key]


def push(
    path: Path,
    bucket: Bucket,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Pushed:
    """Make what lies in a bucket the copy of a cache, finished or not; go on with what is there already.

    Args:
        path: The cache.
        bucket: Where to.
        overwrite: Whether another cache that is there may go.
        progress: Is told of every shard.
        interrupt: Asked between shards.

    Raises:
        CacheDamagedError: The cache is damaged; what is damaged is not sent.
        MismatchError: Another cache is there.
        BusyError: Another process writes there, or here.
        StorageError: The store fails for as long as it is tried.
        StoppedError: A stop was asked for; the same command goes on.
    """
    stored = read_manifest(path)
    # A complete cache changes no more; one that is being dumped has its copy by --copy-to.
    with nullcontext() if stored["complete"] else exclusive(path), held(bucket) as hold:
        copy = Copy(path, bucket, hold)
        require_fit(copy, bucket.address, stored, overwrite=overwrite)
        complete = send_all(copy, path, progress or Silent(), interrupt)
    return Pushed(complete, copy.sent, copy.kept, copy.bytes)


def send_all(copy: Copy, path: Path, progress: Progress, interrupt: Interrupt | None = None) -> bool:
    """Send what is not there of a cache, and return whether it is complete."""
    stored = read_manifest(path)
    manifest = Manifest.from_dict(stored["promise"])
    layout = Layout(manifest)
    digests = digests_of(stored, layout, path / MANIFEST) if stored["complete"] else None
    shards = _shards(path, layout, digests)
    copy.begin(manifest, digests)
    count = at_once(max(layout.chunk_bytes().values()))
    with (
        progress.stage("push", total=len(shards), unit="shards") as stage,
        each(shards, lambda part: copy.shard(*part), count=count) as sent,
    ):
        for number, _ in enumerate(sent, 1):
            stage.advance(1)
            if interrupt is not None:
                interrupt.check(f"{number} of {len(shards)} shards")
    if stored["complete"]:
        copy.finish()
    return bool(stored["complete"])


def require_fit(copy: Copy, address: str, stored: dict[str, Any], *, overwrite: bool = False) -> None:
    """Refuse to mix two caches at one address, or to turn a complete one into an unfinished one.

    Raises:
        MismatchError: What is there was made from something else, or is another cache of the same promise.
        UsageError: What is there is no cache, or more complete than what is here.
    """
    there = copy.manifest()
    if there is None:
        return
    kept = Manifest.from_dict(there["promise"])
    if overwrite:
        copy.forget(kept)
        return
    kept.require_same(Manifest.from_dict(stored["promise"]))
    pairs = [("promise", there["promise"], stored["promise"])]
    if there["complete"] and stored["complete"]:
        pairs.append(("cache", there, stored))
    for what, old, new in pairs:
        if fingerprint_json(old) != fingerprint_json(new):
            raise MismatchError.between(
                f"{address}: {what}",
                stored=f"'{short(fingerprint_json(old))}'",
                given=f"'{short(fingerprint_json(new))}'",
                hint="choose another address, or --overwrite",
            )
    if there["complete"] and not stored["complete"]:
        raise UsageError(
            f"the cache at {address} is complete and the one here is not", hint=f"bancache pull {address}"
        )


def _shards(path: Path, layout: Layout, digests: Mapping[str, Digest] | None) -> list[Part]:
    """Return the shards that are there to be sent, with their files, and their records where they have such."""
    if digests is not None:
        return [
            (shard, {key: digests[key] for key in layout.chunk_keys(shard)}, None)
            for shard in layout.shards()
        ]
    records = read_records(path, layout, fingerprint_json(layout.manifest.to_dict()))
    return [recorded(path, layout.shard(index), record) for index, record in records.items()]


def recorded(path: Path, shard: Shard, record: Mapping[str, Any]) -> Part:
    """Return a shard of an unfinished cache as ``Copy.shard`` takes it."""
    return shard, record["files"], (path / record_key(shard.index)).read_bytes()
