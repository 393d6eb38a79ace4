"""Soft targets of one teacher on disk: a Zarr v3 store in which every file is listed with its size and sha256.

Write with ``bancache.cache.opening.open_writer``, in an object store with ``remote_opening.open_remote_writer``; read with
``reader.open_cache``. This package imports none of them: Zarr takes a second to load, which a command line should not pay
for ``--help``.
"""

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import FORMAT_VERSION, Manifest

__all__ = ["FORMAT_VERSION", "Layout", "Manifest", "Shard"]
