"""The zarr.json files of a cache's group and arrays, written by Zarr and determined by the manifest alone.

They are for other programs. bancache writes them and checks their bytes, and never parses one from disk.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bancache.cache.digests import digest_of, inspect_file
from bancache.cache.layout import Layout
from bancache.cache.profile import ZSTD_LEVELS
from bancache.system.files import make_directory, write_atomically


def describe_arrays(layout: Layout) -> dict[str, bytes]:
    """Return the content of each of ``layout.metadata_keys()``."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.storage import MemoryStore

    files: dict[str, Any] = {}
    store = MemoryStore(files)
    # Keys in order: a manifest read back from disk must give the same bytes.
    attributes = json.loads(json.dumps(layout.manifest.to_dict(), sort_keys=True))
    group = zarr.create_group(store, zarr_format=3, attributes={"bancache": attributes})
    # The checksum comes last: it covers the bytes on disk.
    level = ZSTD_LEVELS.get(layout.manifest.profile)
    codecs = (Crc32cCodec(),) if level is None else (ZstdCodec(level=level), Crc32cCodec())
    for settings in layout.array_settings():
        group.create_array(**settings, fill_value=0, compressors=codecs)
    with warnings.catch_warnings():
        # Consolidated metadata spares readers a listing, and xarray a warning; it is not in the v3 specification.
        warnings.simplefilter("ignore", UserWarning)
        zarr.consolidate_metadata(store, zarr_format=3)
    return {key: files[key].to_bytes() for key in layout.metadata_keys()}


def write_metadata(path: Path, described: Mapping[str, bytes]) -> None:
    """Write the zarr.json files of ``describe_arrays`` that are missing from a cache or differ."""
    for key, content in described.items():
        if inspect_file(path, key, digest_of(content)) is not None:
            make_directory((path / key).parent)
            write_atomically(path / key, content)
