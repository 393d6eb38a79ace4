"""Reading a finished cache: whole slabs, every byte checked against the manifest before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from bancache.cache.compressed import CompactViews, CompressedViews
from bancache.cache.digests import Digest, parse_digests
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, MANIFEST_LIMIT, RECORDS, read_manifest
from bancache.cache.mapped import CHECKSUM_BYTES, MappedViews
from bancache.cache.profile import COMPACT, MMAP
from bancache.errors import CacheDamagedError, MismatchError
from bancache.system.fingerprint import short

EncodedView = dict[str, NDArray[Any]]


class ViewReader(Protocol):
    """One way to get a view index off the disk, by profile."""

    def read(self, view_index: int) -> EncodedView:
        """Return each field of all samples, (samples, *shape)."""

    def shard(self, shard: Shard) -> EncodedView:
        """Return each field of a shard's samples, (shard.stop - shard.start, *shape)."""


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
    _reader: ViewReader

    @property
    def mapped(self) -> bool:
        """Whether a slab is memory that the system pages in, and so costs nothing to ask for again."""
        return self.manifest.profile == MMAP

    def read_view(self, view_index: int) -> EncodedView:
        """Read one view index of all samples: for each field an array (samples, *shape).

        Raises:
            CacheDamagedError: A shard of it, or a metadata file, is missing or not as written; the message
                names it.
        """
        return self._reader.read(view_index)

    def shard(self, shard: Shard) -> EncodedView:
        """Read one shard: for each field an array (shard.stop - shard.start, *shape).

        Raises:
            CacheDamagedError: It is missing or not as written, or the shard that it is stored relative to is; the
                message names it.
        """
        return self._reader.shard(shard)

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
            f"{path} is incomplete: {done} of {layout.count} shards",
            hint="run the `bancache dump` that began it again; it goes on where it stopped",
        )
    digests = digests_of(stored, layout, path / MANIFEST)
    num_views = _reader(path, layout, digests)
    size = sum(digest.size for digest in digests.values()) + (path / MANIFEST).stat().st_size
    return Cache(path, manifest, stored.get("summary", {}), stored["digest"], size, digests, num_views)


def digests_of(stored: dict[str, Any], layout: Layout, name: Path | str) -> dict[str, Digest]:
    """Return what a complete cache's manifest says of its files; no name comes from the manifest itself.

    Raises:
        CacheDamagedError: It does not list exactly the files of its layout, in sizes that make sense.
    """
    files = stored.get("files")
    # Counted before they are named: a promise of 2^80 shards costs nothing.
    if isinstance(files, dict) and len(files) == layout.files():
        chunks = [key for shard in layout.shards() for key in layout.chunk_keys(shard)]
        digests = parse_digests(files, [*layout.metadata_keys(), *chunks])
        if digests is not None and all(0 < d.size <= file_limit(layout) for d in digests.values()):
            return digests
    raise CacheDamagedError(f"{name} does not list the files of its own layout")


def file_limit(layout: Layout) -> int:
    """Return how many bytes a file of a cache has at most, if it makes sense."""
    return max(MANIFEST_LIMIT, *(size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()))


def _reader(path: Path, layout: Layout, digests: Mapping[str, Digest]) -> ViewReader:
    if layout.manifest.profile == MMAP:
        return MappedViews(path, layout, digests)
    kind = CompactViews if layout.manifest.profile == COMPACT else CompressedViews
    return kind(path, layout, digests)
