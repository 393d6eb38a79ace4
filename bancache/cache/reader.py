"""Reading a finished cache: whole slabs, every byte checked against the manifest before it is believed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bancache.cache.layout import Layout
from bancache.cache.manifest import Manifest
from bancache.cache.store import Digest, VerifiedStore
from bancache.cache.writer import MANIFEST, RECORDS, read_manifest
from bancache.errors import CacheDamagedError, MismatchError
from bancache.fingerprint import fingerprint_json, short

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
    """

    path: Path
    manifest: Manifest
    summary: dict[str, Any]
    digest: str
    bytes: int
    _store: VerifiedStore

    def slab(self, slot: int) -> Slab:
        """Read one slot of all samples: for each field an array (samples, *shape).

        Raises:
            CacheDamagedError: A region of it is missing or not as written; the message names it.
        """
        import zarr

        slab = {}
        for settings in Layout(self.manifest).array_settings():
            array = zarr.open_array(self._store, path=settings["name"], mode="r", zarr_format=3)
            if (array.shape, array.chunks, array.dtype) != (
                settings["shape"],
                settings["chunks"],
                settings["dtype"],
            ):
                raise CacheDamagedError(
                    f"{self.path}: array '{settings['name']}' is not as the manifest says"
                )
            slab[settings["name"]] = np.asarray(array[slot : slot + 1])[0]
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
        CacheDamagedError: It is missing, incomplete or its manifest was changed.
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
    body = {key: value for key, value in stored.items() if key != "digest"}
    if stored.get("digest") != fingerprint_json(body):
        raise CacheDamagedError(f"{path / MANIFEST} was changed after it was written", hint="restore it")
    digests = _digests(stored["files"], layout, path)
    names = {key: str(region) for region in layout.regions() for key in layout.chunk_keys(region)}
    size = sum(size for size, _ in digests.values()) + (path / MANIFEST).stat().st_size
    store = VerifiedStore(path, digests, names)
    return Cache(path, manifest, stored["summary"], stored["digest"], size, store)


def _digests(files: Any, layout: Layout, path: Path) -> dict[str, Digest]:
    """Check that the manifest lists exactly the files of its layout; no name comes from the manifest itself."""
    expected = {
        *layout.metadata_keys(),
        *(key for region in layout.regions() for key in layout.chunk_keys(region)),
    }
    if not isinstance(files, dict) or set(files) != expected:
        raise CacheDamagedError(f"{path / MANIFEST} does not list the files of its own layout")
    return {key: (int(size), str(sha256)) for key, (size, sha256) in files.items()}
