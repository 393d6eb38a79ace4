"""Writing a cache: regions in any order, each durable before it is recorded, the manifest last.

    data → flush → rename → flush directory → record (the same way) → … → manifest with every digest

Killed between any two of these, the next writer finds either a recorded region, which it keeps, or an
unrecorded one, which it writes again; both give the same bytes in the end.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.arrays import describe_arrays
from bancache.cache.compressed import fold_region
from bancache.cache.layout import METADATA, Layout, Region
from bancache.cache.manifest import Manifest
from bancache.cache.sealed import (
    FILES_LIMIT,
    MANIFEST,
    RECORDS,
    draft_of,
    is_sealed,
    read_manifest,
    seal,
    unfinished,
)
from bancache.cache.store import Digest, DurableStore, digest_of, inspect_file, parse_digests
from bancache.errors import CacheDamagedError, UsageError
from bancache.files import (
    TEMPORARY_SUFFIX,
    make_directory,
    read_json,
    remove_temporaries,
    storage_errors,
    sync_directory,
    write_atomically,
    write_json,
)
from bancache.fingerprint import fingerprint_json
from bancache.locks import HOLDER, exclusive

_RECORD_LIMIT = 1 << 20


class CacheWriter:
    """A cache that is being written by this process."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Not for callers: see ``open_writer``."""
        self.path, self.layout = path, Layout(manifest)
        self._promise = fingerprint_json(manifest.to_dict())
        self._described = describe_arrays(self.layout)
        self._write_metadata()
        self._store = DurableStore(path)
        self._arrays = self._open_arrays()
        self._records = self._read_records()

    def pending(self) -> list[Region]:
        """Return the regions that are not yet recorded, in order."""
        return [region for region in self.layout.regions() if region.index not in self._records]

    def write_region(self, region: Region, fields: Mapping[str, NDArray[Any]], facts: dict[str, Any]) -> None:
        """Write one region's arrays, then its record; when this returns, both are on disk.

        Args:
            region: One of ``pending``.
            fields: For each field, an array (region.stop - region.start, *shape) of its dtype.
            facts: JSON values about the region, handed to ``finish``.

        Raises:
            StorageError: The disk is full, read-only or failing; what was recorded before stays.
            UsageError: An array has another dtype or shape, which would be cast or repeated silently; or the
                region that this one requires is not recorded.
        """
        self._require_whole(region, fields)
        reference = self._reference(region)
        stored = fold_region(self.path, self.layout, self._described, region, fields, reference)
        for name, array in self._arrays.items():
            array[region.slot : region.slot + 1, region.start : region.stop] = stored[name][np.newaxis]
        keys = self.layout.chunk_keys(region)
        record = {
            "promise": self._promise,
            "region": region.index,
            "rows": region.stop - region.start,
            "files": {key: self._store.digests.pop(key) for key in keys},
            "facts": facts,
        }
        if reference:
            record["reference"] = reference
        write_json(self._record_path(region.index), seal(record))
        self._records[region.index] = record

    def finish(self, summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        """Write the manifest that makes the cache complete, then clear what is no longer needed.

        Args:
            summarise: Makes the manifest's summary from all regions' facts, in the regions' order.
        """
        if missing := self.pending():
            raise CacheDamagedError(f"{len(missing)} regions are still missing")
        records = [self._records[index] for index in range(self.layout.count)]
        files: dict[str, Digest] = {key: digest_of(content) for key, content in self._described.items()}
        for record in records:
            files.update(record["files"])
        body = {
            **draft_of(self.layout.manifest.to_dict()),
            "complete": True,
            "summary": summarise([record["facts"] for record in records]),
            "files": {key: list(files[key]) for key in sorted(files)},
        }
        write_json(self.path / MANIFEST, seal(body))
        _tidy(self.path)

    def _require_whole(self, region: Region, fields: Mapping[str, NDArray[Any]]) -> None:
        for field in self.layout.manifest.fields:
            found = fields[field.name]
            shape = (region.stop - region.start, *field.shape)
            if found.dtype != np.dtype(field.dtype) or found.shape != shape:
                raise UsageError(
                    f"{region}: '{field.name}' is {found.dtype}{list(found.shape)}, "
                    f"the cache keeps {field.dtype}{list(shape)}"
                )

    def _reference(self, region: Region) -> dict[str, Digest]:
        """Return the digests of the region's files that this one is stored relative to; usually none.

        A record is read where another process may have written it.
        """
        required = self.layout.requires(region)
        if required is None:
            return {}
        record = self._records.get(required.index) or self._read_record(self._record_path(required.index))
        if record is None:
            raise UsageError(f"{region} is written relative to {required}, which is not yet recorded")
        return {key: Digest(*digest) for key, digest in record["files"].items()}

    def _write_metadata(self) -> None:
        """Write what describes the group and the arrays, where it is not there as it should be."""
        for key, content in self._described.items():
            if inspect_file(self.path, key, digest_of(content)) is not None:
                make_directory((self.path / key).parent)
                write_atomically(self.path / key, content)

    def _open_arrays(self) -> dict[str, Any]:
        import zarr

        # A region that happens to equal the fill value is written like any other.
        with zarr.config.set({"array.write_empty_chunks": True}):
            return {
                field.name: zarr.open_array(self._store, path=field.name, mode="r+", zarr_format=3)
                for field in self.layout.manifest.fields
            }

    def _read_records(self) -> dict[int, dict[str, Any]]:
        """Return the records whose files are there as written; the others' regions are written again.

        Everything recorded is read once: the manifest will vouch for it, and a read is far cheaper than a
        teacher's answer.
        """
        make_directory(self.path / RECORDS)
        found = (self._read_record(path) for path in sorted((self.path / RECORDS).glob("*.json")))
        records = {record["region"]: record for record in found if record is not None}
        return {index: record for index, record in records.items() if self._is_based(record, records)}

    def _is_based(self, record: dict[str, Any], records: Mapping[int, dict[str, Any]]) -> bool:
        """Whether the region that a record's is stored relative to is still the one that it was written from."""
        required = self.layout.requires(self.layout.region(record["region"]))
        if required is None:
            return True
        keys = self.layout.chunk_keys(required)
        base = records.get(required.index, {}).get("files")
        return base is not None and parse_digests(record.get("reference"), keys) == parse_digests(base, keys)

    def _read_record(self, path: Path) -> dict[str, Any] | None:
        try:
            record = read_json(path, limit=_RECORD_LIMIT, error=CacheDamagedError)
        except CacheDamagedError:
            return None
        if not isinstance(record, dict) or not is_sealed(record) or record.get("promise") != self._promise:
            return None
        index = record.get("region")
        if type(index) is not int or not 0 <= index < self.layout.count or "facts" not in record:
            return None
        digests = parse_digests(record.get("files"), self.layout.chunk_keys(self.layout.region(index)))
        if digests is None or any(inspect_file(self.path, *item) is not None for item in digests.items()):
            return None
        return record

    def _record_path(self, index: int) -> Path:
        return self.path / RECORDS / f"{index:06d}.json"


@contextmanager
def open_writer(path: Path, manifest: Manifest, *, overwrite: bool = False) -> Iterator[CacheWriter | None]:
    """Create a cache, or go on with one that makes the same promise; None when it is complete already.

    Raises:
        MismatchError: What is there was made from something else.
        BusyError: Another process is writing it.
        UsageError: What is there is not a cache.
        StorageError: The place cannot be written.
    """
    if Layout(manifest).files() > FILES_LIMIT:
        raise UsageError(
            f"the cache would have {Layout(manifest).files():,} files; at most {FILES_LIMIT:,} fit its manifest",
            hint="make several caches of fewer views",
        )
    _require_ours(path)
    make_directory(path)
    with exclusive(path):
        _require_no_links(path)
        if (path / MANIFEST).is_file():
            stored = read_manifest(path)
            kept = Manifest.from_dict(stored["promise"])
            if overwrite:
                _clear(path, kept)
            else:
                kept.require_same(manifest)
                # The promise on disk stays as it is, down to the versions that began it.
                manifest = kept
        if overwrite or not (path / MANIFEST).is_file():
            write_json(path / MANIFEST, unfinished(manifest))
        elif stored["complete"]:
            _tidy(path)
            yield None
            return
        _settle(path)
        yield CacheWriter(path, manifest)


def _require_ours(path: Path) -> None:
    """Refuse a place where there is anything that no writer of caches left, however early it was killed."""
    with storage_errors(path):
        if (path / MANIFEST).is_file():
            read_manifest(path)
        elif path.exists() and (not path.is_dir() or any(not _is_left_over(e) for e in path.iterdir())):
            raise UsageError(f"{path} exists and is not a cache", hint="choose another --out")


def _is_left_over(entry: Path) -> bool:
    return entry.name == HOLDER or entry.name.endswith(TEMPORARY_SUFFIX)


def _require_no_links(path: Path) -> None:
    """Refuse folders that lead out of the cache: what is written or removed there would be somebody else's."""
    for folder, names, _ in os.walk(path):
        for name in names:
            if (link := Path(folder) / name).is_symlink():
                raise CacheDamagedError(f"{link} is a link", hint="put the folder itself there")


def _settle(path: Path) -> None:
    """Flush the folders that an earlier writer may have made and not flushed, and remove what it left half written.

    Only whoever flushed a folder may build on its being there; a writer that was killed told nobody.
    """
    with storage_errors(path):
        remove_temporaries(path)
        sync_directory(path.parent)
        for folder, _, _ in os.walk(path):
            sync_directory(Path(folder))


def _tidy(path: Path) -> None:
    """Remove what a complete cache does not need: records that the manifest has, what killed writers left."""
    with storage_errors(path):
        if (path / RECORDS).is_dir():
            shutil.rmtree(path / RECORDS)
        remove_temporaries(path)


def _clear(path: Path, kept: Manifest) -> None:
    """Remove what a cache consists of and nothing else, the manifest excepted, which is replaced afterwards.

    It first says that the cache is unfinished: killed in between, that is what is left.
    """
    write_json(path / MANIFEST, unfinished(kept))
    with storage_errors(path):
        for name in (RECORDS, *(field.name for field in kept.fields)):
            if (path / name).is_dir():
                shutil.rmtree(path / name)
        (path / METADATA).unlink(missing_ok=True)
