"""From an object store to a folder: a file gets its name only after its sha256 was checked.

Nothing in the store is trusted: file names come from the layout, an object's size is checked before its bytes are fetched,
and the manifest goes through the same checks as one on disk. After a kill, the folder holds an unfinished cache, and the
same command goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bancache.cache.digests import WRONG_SHA256, Digest, digest_of, inspect_file
from bancache.cache.directory import (
    flush_folders,
    remove_working_files,
    require_no_links,
    require_ours,
    write_file,
    write_metadata,
)
from bancache.cache.layout import Layout, describe_arrays
from bancache.cache.manifest_io import (
    FILES_LIMIT,
    MANIFEST,
    MANIFEST_LIMIT,
    manifest_of,
    parse_manifest,
    read_manifest,
    unfinished,
)
from bancache.cache.reader import digests_of, file_limit
from bancache.cache.records import RECORD_LIMIT, parse_record, record_index, record_key
from bancache.errors import CacheDamagedError, StorageError, UsageError
from bancache.remote.transfer import Transferred, require_same_cache, transfer_all
from bancache.system.bucket import Bucket
from bancache.system.checked import json_object
from bancache.system.files import bytes_below, free_bytes, make_directory, write_atomically, write_json
from bancache.system.locks import exclusive
from bancache.system.progress import Progress
from bancache.system.signals import Interrupt

_PUSH_AGAIN = "push it again from a folder where it is intact, with --overwrite"
_OTHERS = 1000
# A shard's name in errors, its files, and its record, which is written once they are here.
_Part = tuple[str, Mapping[str, Digest], tuple[str, bytes] | None]


def _fetch(bucket: Bucket, path: Path, result: Transferred, part: _Part) -> None:
    """Fetch the files of a shard that are not here yet, each checked, then its record."""
    name, files, record = part
    for key, digest in files.items():
        if inspect_file(path, key, digest) is None:
            result.count(digest.size, kept=True)
            continue
        content = bucket.get(key, digest.size)
        if content is None or digest_of(content) != digest:
            problem = "it is missing" if content is None else WRONG_SHA256
            raise CacheDamagedError(f"{bucket.address}: {name} is damaged: {problem}", hint=_PUSH_AGAIN)
        write_file(path, key, content)
        result.count(digest.size, kept=False)
    if record is not None:
        write_file(path, *record)


def pull(
    bucket: Bucket,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Transferred:
    """Fetch a cache, finished or not, from an object store into a new folder or one that holds a part of it.

    Files that are here and intact are kept. ``progress`` counts shards, ``interrupt`` is checked after each.
    """
    path = Path(path)
    content = bucket.get(MANIFEST, MANIFEST_LIMIT)
    if content is None:
        raise CacheDamagedError(
            f"there is no cache at {bucket.address}", hint="name the address that `bancache push` was given"
        )
    stored = parse_manifest(content, bucket.name(MANIFEST))
    layout, result = Layout(manifest_of(stored)), Transferred(complete=stored["complete"])
    if layout.files() > FILES_LIMIT:
        raise CacheDamagedError(f"{bucket.name(MANIFEST)} implies {layout.files():,} files", hint=_PUSH_AGAIN)
    parts = list(_parts(bucket, stored, layout))
    require_ours(path)
    _require_space(path, sum(digest.size for _, files, _ in parts for digest in files.values()))
    make_directory(path)
    with exclusive(path):
        _begin(path, stored, layout)
        largest = max(layout.chunk_bytes().values())
        fetch = partial(_fetch, bucket, path, result)
        transfer_all("pull", fetch, parts, largest=largest, progress=progress, interrupt=interrupt)
        flush_folders(path)
        if stored["complete"]:
            write_atomically(path / MANIFEST, content)
            remove_working_files(path)
    return result


def _require_space(path: Path, size: int) -> None:
    """Refuse a cache that says it is larger than the free space and what is here already."""
    free = free_bytes(path) + (bytes_below(path) if path.is_dir() else 0)
    if size > free:
        raise StorageError(
            f"the cache has {size:,} bytes, and {path} has room for {free:,}",
            hint="free some space, or choose another folder",
        )


def _begin(path: Path, stored: dict[str, Any], layout: Layout) -> None:
    """Begin an unfinished cache in the folder, or require that it holds the same one."""
    require_no_links(path)
    if not (path / MANIFEST).is_file():
        write_json(path / MANIFEST, unfinished(layout.manifest))
        write_metadata(path, describe_arrays(layout))
        return
    here = read_manifest(path)
    if here["complete"] and not stored["complete"]:
        raise UsageError(
            f"the cache at {path} is complete and its copy is not", hint="copy it there with `bancache push`"
        )
    require_same_cache(path, here, stored, hint="choose another folder")


def _parts(bucket: Bucket, stored: dict[str, Any], layout: Layout) -> Iterator[_Part]:
    """Return what there is to fetch: zarr.json files, then shards in order."""
    if stored["complete"]:
        digests = digests_of(stored, layout, bucket.name(MANIFEST))
        for key in layout.metadata_keys():
            yield key, {key: digests[key]}, None
        for shard in layout.shards():
            yield str(shard), {key: digests[key] for key in layout.chunk_keys(shard)}, None
        return
    # Its files, a record for each shard, the manifest, leases, and what others put there.
    limit, most = file_limit(layout), layout.files() + layout.count + _OTHERS
    for index in sorted({found for key in bucket.listed(most) if (found := record_index(key)) is not None}):
        content = bucket.get(record_key(index), RECORD_LIMIT) if index < layout.count else None
        if content is None:
            continue
        record = parse_record(json_object(content), layout, index)
        if record is not None and all(digest.size <= limit for digest in record["files"].values()):
            yield str(layout.shard(index)), record["files"], (record_key(index), content)
