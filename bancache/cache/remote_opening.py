"""Opening a cache in an object store for writing: any number of processes begin it or go on with it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from bancache.cache.claims import LEASE_SECONDS
from bancache.cache.layout import METADATA
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import (
    MANIFEST,
    MANIFEST_LIMIT,
    RECORDS,
    manifest_of,
    parse_manifest,
    unfinished,
)
from bancache.cache.opening import require_few_files, require_fingerprint
from bancache.cache.remote_claims import NOTE_LIMIT
from bancache.cache.remote_writer import RemoteWriter, remove_working
from bancache.errors import BusyError, CacheDamagedError, UsageError
from bancache.system.address import Address
from bancache.system.bucket import Bucket, seconds_unchanged
from bancache.system.checked import json_object
from bancache.system.files import json_bytes
from bancache.system.locks import CLAIMS, HOLDER, as_note, describe_holder, is_gone


@contextmanager
def open_remote_writer(
    path: Address, manifest: Manifest, *, overwrite: bool = False, mixed: bool = False
) -> Iterator[RemoteWriter | None]:
    """Begin a cache at an address, or go on with an unfinished one of the same manifest; yield None if it is complete already.

    Any number of processes may do so at once. With ``overwrite``, start anew. With ``mixed``, the manifest may name another
    kind of device than the cache's.

    Raises:
        BusyError: Another process pushes a cache there, or, with ``overwrite``, writes there.
        MismatchError: The cache there has another manifest.
        UsageError: Other objects lie there.
    """
    require_few_files(manifest)
    writer = _begin(Bucket(str(path)), path, manifest, overwrite, mixed)
    if writer is not None:
        writer.made_on = writer.layout.manifest.other_device(manifest)
    try:
        yield writer
    finally:
        if writer is not None:
            writer.claims.release_all()


@contextmanager
def attend_remote(path: Address, fingerprint: str) -> Iterator[RemoteWriter | None]:
    """Write single shards of a cache at an address, as ``attend`` does in a folder; errors are the same."""
    found = Bucket(str(path)).tagged(MANIFEST, MANIFEST_LIMIT)
    if found is None:
        raise CacheDamagedError(
            f"there is no cache to be seen at {path}",
            hint="all workers must see the same store: the AWS_ variables, or others, of each",
        )
    stored = parse_manifest(found[0], path / MANIFEST)
    manifest = manifest_of(stored)
    require_fingerprint(path, manifest, fingerprint)
    yield None if stored["complete"] else RemoteWriter(path, manifest, found[1], attending=True)


def _begin(
    bucket: Bucket, path: Address, manifest: Manifest, overwrite: bool, mixed: bool
) -> RemoteWriter | None:
    """Make sure that an unfinished manifest is at the address; None if the cache is complete."""
    while True:
        found = bucket.tagged(MANIFEST, MANIFEST_LIMIT)
        if found is None:
            _require_ours(bucket)
            tag = bucket.create(MANIFEST, json_bytes(unfinished(manifest)))
            kept = manifest
        else:
            stored, tag = parse_manifest(found[0], path / MANIFEST), found[1]
            kept = manifest_of(stored)
            if overwrite:
                tag, kept = _clear(bucket, kept, manifest, found[1]), manifest
            else:
                kept.require_same(manifest)
                if stored["complete"]:
                    remove_working(bucket)
                    return None
                if not mixed:
                    kept.require_same_device(manifest)
                _require_idle(bucket, [HOLDER])
        if tag is not None:  # else another process was faster
            return RemoteWriter(path, kept, tag)


def _require_ours(bucket: Bucket) -> None:
    """Refuse an address with other objects than what a killed writer leaves."""
    listed = bucket.listed()
    others = [key for key in listed if not key.startswith((HOLDER, f"{CLAIMS}/"))]
    if others and MANIFEST not in listed:  # else another process has just begun the cache
        raise UsageError(
            f"{bucket.address} holds {others[0]} and no cache", hint="choose another --out, of its own"
        )


def _clear(bucket: Bucket, kept: Manifest, manifest: Manifest, tag: str) -> str | None:
    """Remove the objects of a cache and no others; the manifest says "unfinished" first, and is then the new one's.

    Returns the tag of the new manifest, or None if another process changed it.
    """
    listed = bucket.listed()
    _require_idle(bucket, [key for key in listed if key == HOLDER or key.startswith(f"{CLAIMS}/")])
    begun = bucket.replace(MANIFEST, json_bytes(unfinished(kept)), tag)
    if begun is None:
        return None
    folders = tuple(f"{name}/" for name in (RECORDS, CLAIMS, *(field.name for field in kept.fields)))
    bucket.delete([key for key in listed if key == METADATA or key.startswith(folders)])
    return bucket.replace(MANIFEST, json_bytes(unfinished(manifest)), begun)


def _require_idle(bucket: Bucket, keys: list[str]) -> None:
    """Refuse an address with a note of a process that is, or may be, alive."""
    for key in keys:
        there = bucket.head(key)
        holder = as_note(json_object(bucket.get(key, NOTE_LIMIT))) if there else {}
        if there is None or is_gone(holder):
            continue
        if seconds_unchanged(bucket, there, uuid.uuid4().hex) < LEASE_SECONDS:
            raise BusyError(
                f"{bucket.address} is in use by {describe_holder(holder)}",
                hint=f"wait for it; if it died on another machine, for {LEASE_SECONDS:g} s",
            )
