"""Reading a finished cache: whole slabs, every byte checked against the manifest before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.arrays import describe_arrays
from bancache.cache.layout import Layout, Region
from bancache.cache.manifest import Manifest
from bancache.cache.sealed import MANIFEST, MANIFEST_LIMIT, RECORDS, read_manifest
from bancache.cache.store import Chunk, Digest, VerifiedStore, damaged, inspect_file, parse_digests
from bancache.errors import CacheDamagedError, MismatchError
from bancache.fingerprint import short

Slab = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Cache:
    """A complete cache, open for reading.

    Attributes:
        path: Its directory.
        manifest: What it promises.
        summary: What was found while it was written, such as the encoding's fidelity.
        digest: Fingerprint of the manifest with all digests, and so of the whole content.
        bytes: Size of all its files.
        digests: Size and sha256 of every file but the manifest.
    """

    path: Path
    manifest: Manifest
    summary: dict[str, Any]
    digest: str
    bytes: int
    digests: Mapping[str, Digest]
    _store: VerifiedStore

    def slab(self, slot: int) -> Slab:
        """Read one slot of all samples: for each field an array (samples, *shape).

        Raises:
            CacheDamagedError: A region of it, or a metadata file, is missing or not as written; the message
                names it.
        """
        for key in Layout(self.manifest).metadata_keys():
            if problem := inspect_file(self.path, key, self.digests[key]):
                raise damaged(key, problem, self.path)
        return self._read(slot, slice(None))

    def region(self, region: Region) -> Slab:
        """Read one region: for each field an array (region.stop - region.start, *shape).

        Raises:
            CacheDamagedError: It is missing or not as written; the message names it.
        """
        return self._read(region.slot, slice(region.start, region.stop))

    def _read(self, slot: int, samples: slice) -> Slab:
        import zarr

        slab = {}
        for field in self.manifest.fields:
            array = zarr.open_array(self._store, path=field.name, mode="r", zarr_format=3)
            slab[field.name] = np.asarray(array[slot : slot + 1, samples])[0]
        return slab

    def require_dataset(self, fingerprint: str) -> None:
        """Refuse a data set that is not the one the teacher answered for.

        Raises:
            MismatchError: Content, order, labels or class names differ.
        """
        stored = self.manifest.dataset["fingerprint"]
        if stored != fingerprint:
            raise MismatchError.between(
                "data set",
                stored=f"'{short(stored)}'",
                given=f"'{short(fingerprint)}'",
                hint="content, order, labels and class names all count; dump again for this data set",
            )


def open_cache(path: Path) -> Cache:
    """Open a complete cache.

    Raises:
        CacheDamagedError: It is missing, incomplete, or its manifest was changed.
        MismatchError: It was written by a newer format.
    """
    stored = read_manifest(path)
    manifest = Manifest.from_dict(stored["promise"])
    layout = Layout(manifest)
    if not stored["complete"]:
        done = len(list((path / RECORDS).glob("*.json"))) if (path / RECORDS).is_dir() else 0
        raise CacheDamagedError(
            f"{path} is incomplete: {done} of {layout.count} regions",
            hint="run the `bancache dump` that began it again; it goes on where it stopped",
        )
    digests = _digests(stored.get("files"), layout, path)
    store = VerifiedStore(path, describe_arrays(layout), _chunks(digests, layout))
    size = sum(digest.size for digest in digests.values()) + (path / MANIFEST).stat().st_size
    return Cache(path, manifest, stored.get("summary", {}), stored["digest"], size, digests, store)


def _digests(files: Any, layout: Layout, path: Path) -> dict[str, Digest]:
    """Check that the manifest lists exactly the files of its layout; no name comes from the manifest itself."""
    # Counted before they are named: a promise of 2^80 regions costs nothing.
    if isinstance(files, dict) and len(files) == layout.files():
        chunks = [key for region in layout.regions() for key in layout.chunk_keys(region)]
        digests = parse_digests(files, [*layout.metadata_keys(), *chunks])
        if digests is not None and all(0 < d.size <= MANIFEST_LIMIT for d in digests.values()):
            return digests
    raise CacheDamagedError(f"{path / MANIFEST} does not list the files of its own layout")


def _chunks(digests: dict[str, Digest], layout: Layout) -> dict[str, Chunk]:
    """Return what is known of every chunk, by its file."""
    decoded = layout.chunk_bytes()
    return {
        key: Chunk(digests[key], decoded[field.name], str(region))
        for region in layout.regions()
        for field, key in zip(layout.manifest.fields, layout.chunk_keys(region), strict=True)
    }
