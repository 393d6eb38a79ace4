"""Opening a finished cache and reading encoded targets: every file is checked against the manifest before it is used."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bancache.cache.chunks import CHECKSUM_BYTES
from bancache.cache.digests import Digest, digests_for
from bancache.cache.files import Files, open_files
from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import Manifest
from bancache.cache.manifest_io import MANIFEST, MANIFEST_LIMIT, manifest_of
from bancache.cache.profile import MMAP
from bancache.cache.records import count_records
from bancache.cache.views import CompressedViews, EncodedView, MappedViews, ViewReader
from bancache.cache.where import where
from bancache.errors import CacheDamagedError, MismatchError, UsageError
from bancache.sources.image_set import ImageSet
from bancache.sources.spec import DataSpec
from bancache.system.checked import checked
from bancache.system.wording import count

__all__ = ["Cache", "EncodedView", "digests_of", "file_limit", "open_cache"]


@dataclass(frozen=True)
class Cache:
    """A complete cache, open for reading; made by ``open_cache``. It may be moved between processes.

    While it is open, no command overwrites it (a shared lock on its manifest.json). If it is replaced all the same, by
    ``mv`` or ``rm`` or in an object store, which has no locks, reading raises MismatchError and not CacheDamagedError.

    Attributes:
        path: The cache's directory; a path that prints as the address of an object store, if it lies there.
        manifest: Sizes (``samples``, ``num_views``, ``classes``), arrays, encoding, views, data set, teacher.
        summary: JSON values measured while it was written, such as ``fidelity`` (docs/format.md); may be empty.
        digest: sha256 of the manifest with all digests, hexadecimal: equal digests mean equal caches.
        bytes: Size of all files.
        digests: Size and sha256 of every file but the manifest, by its path relative to ``path``.
    """

    path: Path
    manifest: Manifest
    summary: dict[str, Any]
    digest: str
    bytes: int
    digests: Mapping[str, Digest]
    _reader: ViewReader
    _files: Files

    @property
    def mapped(self) -> bool:
        """Whether a view is mapped memory (profile ``mmap`` on disk), so that reading it again costs next to nothing."""
        return self.manifest.profile == MMAP and self._files.mappable

    def read_view(self, view_index: int) -> EncodedView:
        """Return the encoded targets of one view of every sample.

        Args:
            view_index: 0 … num_views − 1.

        Returns:
            For each of ``manifest.fields``, an array (samples, *field.shape) of its dtype. Writing to it never changes
            the cache.

        Raises:
            CacheDamagedError: A file is missing or not as written; the message names its shard.
            UsageError: The cache has no such view.
        """
        self.manifest.require_pairs((), [view_index])
        with self._as_opened():
            return self._reader.read_view(view_index)

    def shard(self, shard: Shard) -> EncodedView:
        """Return the encoded targets of one shard (see ``Layout(cache.manifest).shards()``).

        Returns:
            For each of ``manifest.fields``, an array (shard.stop - shard.start, *field.shape) of its dtype.

        Raises:
            CacheDamagedError: The shard, or the shard of view 0 that it is stored relative to, is missing or not as
                written; the message names it.
        """
        with self._as_opened():
            return self._reader.read([shard])

    @contextlib.contextmanager
    def _as_opened(self) -> Iterator[None]:
        try:
            yield
        except CacheDamagedError:
            self._require_current()
            raise

    def _require_current(self) -> None:
        """Raise MismatchError if what lies at the path now is not the cache that was opened."""
        if not self._files.is_current():
            raise MismatchError(
                f"{self.path} was removed or replaced while it was read",
                hint="put it back, or run the same command again for the cache that is there now",
            )

    @functools.cached_property
    def images(self) -> ImageSet:
        """The training images, opened at first use where the cache says that they are; ``images.paths`` are their files."""
        images = DataSpec.from_dict(self.manifest.dataset["spec"]).open("train")
        self.require_dataset(images.fingerprint)
        return images

    def where(self, sample: int, view: int, *, images: ImageSet | None = None) -> dict[str, Any]:
        """Return what a sample's view shows, as ``bancache view`` says it.

        Args:
            sample: Position in the data set.
            view: View index.
            images: The training images, if they are elsewhere now; by default ``images`` of the cache.

        Returns:
            JSON values: ``sample``, ``view``, the class's name as ``label``, the picture's ``path`` (None for arrays), and
            ``params``: ``crop`` (top, left, height, width in pixels of the picture), ``flip``, ``ops``, ``erase``,
            ``partner``, ``lam``, ``cutmix``.

        Raises:
            MismatchError: The images are not those of the cache.
            UsageError: The cache has no such sample or view.
        """
        self.manifest.require_pairs([sample], [view])
        return where(self.manifest, self.images if images is None else images, [sample], view)[0]

    def require_dataset(self, fingerprint: str) -> None:
        """Require that a data set is the one that the teacher saw.

        Raises:
            MismatchError: Content, order, labels or class names differ.
        """
        self.manifest.require_dataset(fingerprint)


def open_cache(path: str | os.PathLike[str], *, keep_local: float = 0) -> Cache:
    """Open a complete cache, in a directory or at an address such as ``s3://bucket/gen0.zarr``. Only its manifest is read.

    At an address, each view is fetched when it is read, and is checked like a file.

    Args:
        path: The directory or address.
        keep_local: GB of files that stay in the user's cache directory after they were fetched (``XDG_CACHE_HOME``, else
            ``~/.cache``), and are read there by later epochs and runs; for a cache at an address only. By default none.

    Raises:
        CacheDamagedError: It is missing or incomplete, or its manifest was changed.
        MismatchError: A newer format wrote it.
        StorageError: The object store cannot be reached or refuses.
        UsageError: The address is of no known kind, or what ``keep_local`` asks for is impossible.
    """
    if not keep_local >= 0 or keep_local == float("inf"):
        raise UsageError(
            f"{keep_local:g} GB cannot be kept", hint="name a number from 0 on with --keep-local"
        )
    files = open_files(path)
    path, (stored, manifest_bytes) = files.path, files.manifest()
    manifest = manifest_of(stored)
    layout = Layout(manifest)
    if not stored["complete"]:
        raise CacheDamagedError(
            f"{path} is incomplete: {count_records(path)} of {count(layout.count, 'shard')}",
            hint="run the `bancache dump` that began it again; it goes on where it stopped",
        )
    digests = digests_of(stored, layout, path / MANIFEST)
    if keep_local:
        chunks = {key: digests[key] for shard in layout.shards() for key in layout.chunk_keys(shard)}
        files.keep(stored["digest"], chunks, int(keep_local * 1e9))
    reader = (MappedViews if manifest.profile == MMAP else CompressedViews)(files, layout, digests)
    size = sum(digest.size for digest in digests.values()) + manifest_bytes
    return Cache(path, manifest, stored.get("summary", {}), stored["digest"], size, digests, reader, files)


def digests_of(stored: dict[str, Any], layout: Layout, name: Path | str) -> dict[str, Digest]:
    """Return the digests in a complete cache's manifest.json; file names come from the layout, not from it."""
    files = checked(stored.get("files"), dict[str, Digest], name=f"{name}: files", error=CacheDamagedError)
    # Counted before they are named: a manifest of 2^80 shards costs nothing.
    if len(files) == layout.files():
        chunks = [key for shard in layout.shards() for key in layout.chunk_keys(shard)]
        digests = digests_for(files, [*layout.metadata_keys(), *chunks], file_limit(layout))
        if digests is not None:
            return digests
    raise CacheDamagedError(f"{name} does not list the files of its own layout")


def file_limit(layout: Layout) -> int:
    """Return the size that no file of an intact cache exceeds."""
    return max(MANIFEST_LIMIT, *(size + CHECKSUM_BYTES for size in layout.chunk_bytes().values()))
