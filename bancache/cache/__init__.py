"""A teacher's answers on disk: a Zarr v3 store that is whole, verified and bound to what it was made from.

``bancache.cache.opening.open_writer`` and ``bancache.cache.reader.open_cache`` are its two doors; they are not
imported here, since Zarr costs a second that a command line should not pay for ``--help``.
"""

from bancache.cache.layout import Layout, Shard
from bancache.cache.manifest import FORMAT_VERSION, Manifest

__all__ = ["FORMAT_VERSION", "Layout", "Manifest", "Shard"]
