"""From an object store to a folder: a file gets its name only after its sha256 was checked.

Nothing in the store is trusted: file names come from the layout, an object's size is checked before its bytes are fetched,
and the manifest goes through the same checks as one on disk. After a kill, the folder holds an unfinished cache, and the
same command goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bancache.cache.digests import WRONG_SHA256, Digest, digest_of, inspect_file
from bancache.cache.directory import flush_folders, remove_working_files, require_no_links, require_ours
from bancache.cache.layout import Layout
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
from bancache.cache.zarr_metadata import describe_arrays, write_metadata
from bancache.errors import CacheDamagedError, UsageError
from bancache.remote.bucket import Bucket
from bancache.remote.parallel import transfer_all
from bancache.remote.transfer import Transferred, require_same_cache
from bancache.system.files import make_directory, write_atomically, write_json
from bancache.system.locks import exclusive
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt

_PUSH_AGAIN = "push it again from a folder where it is intact, with --overwrite"
# A shard's name in errors, its files, and its record, which is written once they are here.
_Part = tuple[str, Mapping[str, Digest], tuple[str, bytes] | None]


class _Fetcher:
    """Fetches files of one cache that are not here yet."""

    def __init__(self, bucket: Bucket, path: Path) -> None:
        self._bucket, self._path, self.result = bucket, path, Transferred()

    def fetch(self, part: _Part) -> None:
        """Fetch the files of a shard, each checked, then its record."""
        name, files, record = part
        for key, digest in files.items():
            if inspect_file(self._path, key, digest) is None:
                self.result.count(digest.size, kept=True)
                continue
            content = self._bucket.get(key, digest.size)
            if content is None or digest_of(content) != digest:
                problem = "it is missing" if content is None else WRONG_SHA256
                raise CacheDamagedError(
                    f"{self._bucket.address}: {name} is damaged: {problem}", hint=_PUSH_AGAIN
                )
            self._write(key, content)
            self.result.count(digest.size, kept=False)
        if record is not None:
            self._write(*record)

    def _write(self, key: str, content: bytes) -> None:
        make_directory((self._path / key).parent)
        write_atomically(self._path / key, content)


def pull(
    bucket: Bucket,
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Transferred:
    """Fetch a cache, finished or not, from an object store; files that are here and intact are kept.

    Args:
        bucket: The cache's address.
        path: The folder to make, or one that holds a part of the same cache.
        progress: Counts shards.
        interrupt: Checked after each shard.

    Raises:
        CacheDamagedError: There is no cache at the address, or a file of it is missing or not as written.
        MismatchError: The folder holds another cache.
        UsageError: The cache in the folder is complete and the one at the address is not.
        BusyError: Another process is writing to the folder.
        StorageError: The store or the disk fails.
        StoppedError: A stop was asked for; the same command goes on.
    """
    path = Path(path)
    content = bucket.get(MANIFEST, MANIFEST_LIMIT)
    if content is None:
        raise CacheDamagedError(
            f"there is no cache at {bucket.address}", hint="name the address that `bancache push` was given"
        )
    stored = parse_manifest(content, bucket.name(MANIFEST))
    layout, fetcher = Layout(manifest_of(stored)), _Fetcher(bucket, path)
    if layout.files() > FILES_LIMIT:
        raise CacheDamagedError(f"{bucket.name(MANIFEST)} implies {layout.files():,} files", hint=_PUSH_AGAIN)
    parts = list(_parts(bucket, stored, layout))
    require_ours(path)
    make_directory(path)
    with exclusive(path):
        _begin(path, stored, layout)
        largest = max(layout.chunk_bytes().values())
        transfer_all(
            "pull", fetcher.fetch, parts, largest=largest, progress=progress or Silent(), interrupt=interrupt
        )
        flush_folders(path)
        if stored["complete"]:
            write_atomically(path / MANIFEST, content)
            remove_working_files(path)
    fetcher.result.complete = stored["complete"]
    return fetcher.result


def _begin(path: Path, stored: dict[str, Any], layout: Layout) -> None:
    """Begin an unfinished cache in the folder, or require that it holds the same one.

    Raises:
        MismatchError: It holds another cache.
        UsageError: It holds a complete cache, and ``stored`` is unfinished.
    """
    require_no_links(path)
    if not (path / MANIFEST).is_file():
        write_json(path / MANIFEST, unfinished(layout.manifest))
        write_metadata(path, describe_arrays(layout))
        return
    here = read_manifest(path)
    if here["complete"] and not stored["complete"]:
        raise UsageError(f"the cache at {path} is complete and its copy is not", hint="bancache push it")
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
    limit = file_limit(layout)
    for index in sorted({found for key in bucket.listed() if (found := record_index(key)) is not None}):
        content = bucket.get(record_key(index), RECORD_LIMIT) if index < layout.count else None
        if content is None:
            continue
        record = parse_record(_json(content), layout, layout.manifest.fingerprint, index)
        if record is not None and all(digest.size <= limit for digest in record["files"].values()):
            yield str(layout.shard(index)), record["files"], (record_key(index), content)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
