"""From an object store to a folder: nothing appears under its name before its sha256 is that of the manifest or a record.

Nothing that comes from there is believed: names come from the layout, sizes are looked at before bytes are taken, and the
manifest goes through the checks of one on disk. Killed at any instant, what is here is an unfinished cache, and the same
command goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bancache.cache.digests import Digest, digest_of, inspect_file
from bancache.cache.directory import require_no_links, require_ours, settle, tidy
from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import (
    FILES_LIMIT,
    MANIFEST,
    MANIFEST_LIMIT,
    parse_manifest,
    read_manifest,
    unfinished,
)
from bancache.cache.reader import digests_of, file_limit
from bancache.cache.records import RECORD_LIMIT, parse_record, record_index, record_key
from bancache.cache.zarr_metadata import describe_arrays
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.remote.bucket import Bucket
from bancache.remote.many import at_once, each
from bancache.system.files import make_directory, write_atomically, write_json
from bancache.system.fingerprint import fingerprint_json, short
from bancache.system.locks import exclusive
from bancache.system.progress import Progress, Silent
from bancache.system.signals import Interrupt

_AGAIN = "push it again from a folder where it is sound, with --overwrite"
# What a shard is called, its files, and what to write once they are here.
_Part = tuple[str, Mapping[str, Digest], tuple[str, bytes] | None]


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        complete: Whether the cache here is complete now.
        fetched: Files that were fetched.
        kept: Files that were here as they should be.
        bytes: Of what was fetched.
    """

    complete: bool
    fetched: int
    kept: int
    bytes: int


class _Fetcher:
    """Brings files of one cache here, unless they are here."""

    def __init__(self, bucket: Bucket, path: Path) -> None:
        self._bucket, self._path = bucket, path
        self.taken: list[int] = []
        self.kept: list[int] = []

    def bring(self, part: _Part) -> None:
        """Bring the files of a shard, each checked, then its record."""
        name, files, last = part
        for key, digest in files.items():
            if inspect_file(self._path, key, digest) is None:
                self.kept.append(digest.size)
                continue
            content = self._bucket.get(key, digest.size)
            if content is None or digest_of(content) != digest:
                found = "it is missing" if content is None else "its sha256 is not the one written"
                raise CacheDamagedError(f"{self._bucket.address}: {name} is damaged: {found}", hint=_AGAIN)
            make_directory((self._path / key).parent)
            write_atomically(self._path / key, content)
            self.taken.append(len(content))
        if last is not None:
            make_directory((self._path / last[0]).parent)
            write_atomically(self._path / last[0], last[1])


def pull(
    bucket: Bucket,
    path: Path,
    *,
    progress: Progress | None = None,
    interrupt: Interrupt | None = None,
) -> Pulled:
    """Bring the cache that lies in a bucket here, finished or not; go on with what is here already.

    Args:
        bucket: Where it lies.
        path: The folder to make, or one that holds a part of the same cache.
        progress: Is told of every shard.
        interrupt: Asked between shards.

    Raises:
        CacheDamagedError: There is no cache there, or something of it is missing or not as written; it is named.
        MismatchError: Another cache is here.
        UsageError: The cache here is complete, and what is there is not.
        BusyError: Another process writes the folder.
        StorageError: The store or the disk fails.
        StoppedError: A stop was asked for; the same command goes on.
    """
    progress, interrupt = progress or Silent(), interrupt or Interrupt()
    content = bucket.get(MANIFEST, MANIFEST_LIMIT)
    if content is None:
        raise CacheDamagedError(
            f"there is no cache at {bucket.address}", hint="name what `bancache push` was given"
        )
    stored = parse_manifest(content, bucket.name(MANIFEST))
    manifest = Manifest.from_dict(stored["promise"])
    layout, fetcher = Layout(manifest), _Fetcher(bucket, path)
    if layout.files() > FILES_LIMIT:
        raise CacheDamagedError(f"{bucket.name(MANIFEST)} promises {layout.files():,} files", hint=_AGAIN)
    parts = list(_parts(bucket, stored, layout))
    require_ours(path)
    make_directory(path)
    with exclusive(path):
        _begin(path, stored, layout)
        count = at_once(max(layout.chunk_bytes().values()))
        with (
            progress.stage("pull", total=len(parts), unit="shards") as stage,
            each(parts, fetcher.bring, count=count) as brought,
        ):
            for number, _ in enumerate(brought, 1):
                stage.advance(1)
                interrupt.check(f"{number} of {len(parts)} shards")
        settle(path)
        if stored["complete"]:
            write_atomically(path / MANIFEST, content)
            tidy(path)
    return Pulled(stored["complete"], len(fetcher.taken), len(fetcher.kept), sum(fetcher.taken))


def _begin(path: Path, stored: dict[str, Any], layout: Layout) -> None:
    """Leave an unfinished cache here, unless the very same one is here already.

    Raises:
        MismatchError: What is here is another cache.
        UsageError: What is here is more complete than what is there.
    """
    require_no_links(path)
    if not (path / MANIFEST).is_file():
        write_json(path / MANIFEST, unfinished(layout.manifest))
        for key, content in describe_arrays(layout).items():
            make_directory((path / key).parent)
            write_atomically(path / key, content)
        return
    here = read_manifest(path)
    if here["complete"] and not stored["complete"]:
        raise UsageError(f"the cache at {path} is complete and its copy is not", hint="push it instead")
    Manifest.from_dict(here["promise"]).require_same(layout.manifest)
    pairs = [(here["promise"], stored["promise"])]
    if here["complete"] and stored["complete"]:
        pairs.append((here, stored))
    for mine, theirs in pairs:
        if fingerprint_json(mine) != fingerprint_json(theirs):
            raise MismatchError.between(
                f"{path}",
                stored=f"'{short(fingerprint_json(mine))}'",
                given=f"'{short(fingerprint_json(theirs))}'",
                hint="choose another folder",
            )


def _parts(bucket: Bucket, stored: dict[str, Any], layout: Layout) -> Iterator[_Part]:
    """Return what there is to bring: descriptions, then shards, in order."""
    if stored["complete"]:
        digests = digests_of(stored, layout, bucket.name(MANIFEST))
        for key in layout.metadata_keys():
            yield key, {key: digests[key]}, None
        for shard in layout.shards():
            yield str(shard), {key: digests[key] for key in layout.chunk_keys(shard)}, None
        return
    promise, limit = fingerprint_json(layout.manifest.to_dict()), file_limit(layout)
    for index in sorted({found for key in bucket.listed() if (found := record_index(key)) is not None}):
        content = bucket.get(record_key(index), RECORD_LIMIT) if index < layout.count else None
        record = None if content is None else parse_record(_json(content), layout, promise, index)
        sound = record is not None and all(digest.size <= limit for digest in record["files"].values())
        if sound and record is not None and content is not None:
            yield str(layout.shard(index)), record["files"], (record_key(index), content)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
