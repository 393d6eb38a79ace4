"""Writing a cache: regions in any order, each durable before it is recorded, the manifest last.

    data → flush → rename → flush directory → record (the same way) → … → manifest with every digest

Killed between any two of these, the next writer finds either a recorded region, which it keeps, or an
unrecorded one, which it writes again; both give the same bytes in the end.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.layout import METADATA, Layout, Region
from bancache.cache.lock import HOLDER, exclusive
from bancache.cache.manifest import FORMAT_VERSION, Manifest
from bancache.cache.store import Digest, DurableStore, digest_of, inspect_size
from bancache.errors import CacheDamagedError, UsageError
from bancache.files import (
    TEMPORARY_SUFFIX,
    make_directory,
    read_json,
    remove_temporaries,
    write_atomically,
    write_json,
)
from bancache.fingerprint import fingerprint_json

MANIFEST = "manifest.json"
RECORDS = ".regions"
MANIFEST_LIMIT = 64 << 20
_RECORD_LIMIT = 1 << 20


class CacheWriter:
    """A cache that is being written by this process."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Not for callers: see ``open_writer``."""
        self.path, self.layout = path, Layout(manifest)
        self._store = DurableStore(path)
        self._records: dict[int, dict[str, Any]] = {}
        self._arrays = self._open_arrays()
        self._read_records()

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
        """
        for name, array in self._arrays.items():
            array[region.slot : region.slot + 1, region.start : region.stop] = fields[name][np.newaxis]
        keys = self.layout.chunk_keys(region)
        record = {
            "region": region.index,
            "rows": region.stop - region.start,
            "files": {key: self._store.digests.pop(key) for key in keys},
            "facts": facts,
        }
        write_json(self._record_path(region.index), record)
        self._records[region.index] = record

    def finish(self, summarise: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        """Write the manifest that makes the cache complete, then clear what is no longer needed.

        Args:
            summarise: Makes the manifest's summary from all regions' facts, in the regions' order.
        """
        if missing := self.pending():
            raise CacheDamagedError(f"{len(missing)} regions are still missing")
        records = [self._records[index] for index in range(self.layout.count)]
        files: dict[str, Digest] = {
            key: digest_of((self.path / key).read_bytes()) for key in self.layout.metadata_keys()
        }
        for record in records:
            files.update(record["files"])
        body = {
            **draft_of(self.layout.manifest),
            "complete": True,
            "summary": summarise([record["facts"] for record in records]),
            "files": {key: list(files[key]) for key in sorted(files)},
        }
        write_json(self.path / MANIFEST, {**body, "digest": fingerprint_json(body)})
        _tidy(self.path)

    def _open_arrays(self) -> dict[str, Any]:
        """Open the arrays, after writing their description unless it is whole."""
        import zarr

        if not (self.path / METADATA).is_file():
            self._write_metadata()
        arrays = {}
        for settings in self.layout.array_settings():
            # A region that happens to equal the fill value is written like any other.
            with zarr.config.set({"array.write_empty_chunks": True}):
                array = zarr.open_array(self._store, path=settings["name"], mode="r+", zarr_format=3)
            if array.shape != settings["shape"] or array.chunks != settings["chunks"]:
                raise CacheDamagedError(
                    f"{self.path}: array '{settings['name']}' has shape {array.shape}, "
                    f"the manifest says {settings['shape']}",
                    hint="start anew with --overwrite",
                )
            arrays[settings["name"]] = array
        return arrays

    def _write_metadata(self) -> None:
        """Write the group's and the arrays' descriptions, the group's last: where it is, all of them are."""
        described = describe_arrays(self.layout)
        for key in reversed(self.layout.metadata_keys()):
            make_directory((self.path / key).parent)
            write_atomically(self.path / key, described[key])

    def _read_records(self) -> None:
        """Keep the records whose files are there in full; the others' regions are written again."""
        make_directory(self.path / RECORDS)
        for path in sorted((self.path / RECORDS).glob("*.json")):
            record = read_json(path, limit=_RECORD_LIMIT, error=CacheDamagedError)
            region = self.layout.region(int(record["region"]))
            whole = [
                inspect_size(self.path / key, record["files"][key][0]) is None for key in record["files"]
            ]
            if sorted(record["files"]) == sorted(self.layout.chunk_keys(region)) and all(whole):
                self._records[region.index] = record

    def _record_path(self, index: int) -> Path:
        return self.path / RECORDS / f"{index:06d}.json"


def describe_arrays(layout: Layout) -> dict[str, bytes]:
    """Return the metadata files of a cache, as Zarr itself writes them."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = MemoryStore(files)
    # In the order of keys: a promise read back from disk must describe the arrays with the same bytes.
    promise = json.loads(json.dumps(layout.manifest.to_dict(), sort_keys=True))
    group = zarr.create_group(store, zarr_format=3, attributes={"bancache": promise})
    for settings in layout.array_settings():
        # Level 1 reaches the entropy of these bytes; the checksum covers what lies on disk.
        group.create_array(**settings, fill_value=0, compressors=(ZstdCodec(level=1), Crc32cCodec()))
    with warnings.catch_warnings():
        # Consolidated metadata spares readers a listing, and xarray a warning; it is not in the v3 text.
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)
    return {key: files[key].to_bytes() for key in layout.metadata_keys()}


@contextmanager
def open_writer(path: Path, manifest: Manifest, *, overwrite: bool = False) -> Iterator[CacheWriter | None]:
    """Create a cache, or go on with one that makes the same promise; None when it is complete already.

    Raises:
        MismatchError: What is there was made from something else.
        BusyError: Another process is writing it.
        UsageError: What is there is not a cache.
        StorageError: The place cannot be written.
    """
    if _is_somebody_elses(path):
        raise UsageError(f"{path} exists and is not a cache", hint="choose another --out")
    make_directory(path)
    with exclusive(path):
        if overwrite:
            _clear(path)
        if (path / MANIFEST).is_file():
            stored = read_manifest(path)
            Manifest.from_dict(stored["promise"]).require_same(manifest)
            # The promise on disk stays as it is, down to the versions that began it.
            manifest = Manifest.from_dict(stored["promise"])
            if stored["complete"]:
                _tidy(path)
                yield None
                return
        else:
            write_json(path / MANIFEST, {**draft_of(manifest), "complete": False})
        remove_temporaries(path)
        yield CacheWriter(path, manifest)


def _is_somebody_elses(path: Path) -> bool:
    """Whether there is anything at ``path`` that no writer of caches left, however early it was killed."""
    if not path.exists() or (path / MANIFEST).is_file():
        return False
    if not path.is_dir():
        return True
    return any(entry.name != HOLDER and not entry.name.endswith(TEMPORARY_SUFFIX) for entry in path.iterdir())


def draft_of(manifest: Manifest) -> dict[str, Any]:
    """Return the part of manifest.json that is there from the first moment on."""
    return {"format_version": FORMAT_VERSION, "promise": manifest.to_dict()}


def read_manifest(path: Path) -> dict[str, Any]:
    """Read manifest.json as it is.

    Raises:
        CacheDamagedError: It is missing, too large, or not what a writer leaves.
    """
    hint = "name a folder made by `bancache dump`"
    stored = read_json(path / MANIFEST, limit=MANIFEST_LIMIT, error=CacheDamagedError, hint=hint)
    if not isinstance(stored, dict) or not {"promise", "complete"} <= set(stored):
        raise CacheDamagedError(f"{path / MANIFEST} is not a cache's manifest", hint=hint)
    return stored


def _tidy(path: Path) -> None:
    """Remove what a complete cache does not need: records that the manifest has, what killed writers left."""
    if (path / RECORDS).is_dir():
        shutil.rmtree(path / RECORDS)
    remove_temporaries(path)


def _clear(path: Path) -> None:
    """Remove what a cache consists of, manifest first, so that a kill leaves no manifest over missing data."""
    if not (path / MANIFEST).is_file():
        return
    names = [MANIFEST, *(entry.name for entry in path.iterdir() if entry.name != MANIFEST)]
    for name in names:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        elif name != HOLDER:
            (path / name).unlink(missing_ok=True)
