"""manifest.json and the records as files: JSON that carries its own digest, read with suspicion.

A digest finds what a disk did to them. Against somebody who can compute one, size and shape are limited
before anything is parsed, and what is parsed is checked where it is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bancache.cache.manifest import Manifest, require_version
from bancache.errors import CacheDamagedError, UsageError
from bancache.system.fingerprint import fingerprint_json

MANIFEST = "manifest.json"
RECORDS = ".regions"

# A file of a cache takes at most 151 bytes of its manifest, so a manifest of this many is below its limit.
FILES_LIMIT = 400_000
MANIFEST_LIMIT = 64 << 20
# Lists of nothing would parse into thirty times their size; a manifest has three values in a hundred bytes.
_VALUES_BASE, _BYTES_PER_VALUE = 100_000, 32


def require_local(path: Path, *, to_write: bool = False) -> None:
    """Refuse an address like ``s3://bucket/gen0.zarr``, which a file system would take for a folder named ``s3:``."""
    scheme = path.parts[0] if path.parts else ""
    if scheme.endswith(":") and len(scheme) > 2 and not Path(scheme).exists():
        address = str(path).replace(":/", "://", 1)
        copied = f"write {path.name}, and let --copy-to {address} or `bancache push` copy it there"
        brought = f"bancache pull {address} {path.name} brings it here"
        raise UsageError(
            f"{path} is an address, and a cache is used in a folder", hint=copied if to_write else brought
        )


def seal(body: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values with their digest among them."""
    return {**body, "digest": fingerprint_json(body)}


def is_sealed(stored: dict[str, Any]) -> bool:
    """Return whether the digest of some JSON values is the one among them."""
    body = {key: value for key, value in stored.items() if key != "digest"}
    try:
        return bool(stored.get("digest") == fingerprint_json(body))
    except (ValueError, RecursionError):  # not finite, or nested deeper than anything of ours
        return False


def draft_of(promise: dict[str, Any]) -> dict[str, Any]:
    """Return the part of manifest.json that is there from the first moment on."""
    return {"format_version": promise["format_version"], "promise": promise}


def unfinished(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest.json of a cache that is being written."""
    return seal({**draft_of(manifest.to_dict()), "complete": False})


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a cache's manifest.json; its digest holds, its promise is not yet checked.

    Raises:
        CacheDamagedError: It is missing, too large, changed, or not what a writer leaves.
        MismatchError: It was written by a newer format.
        UsageError: The path is an address of something that is no file system.
    """
    require_local(path)
    file = path / MANIFEST
    return parse_manifest(_content(file), file)


def parse_manifest(content: bytes, file: Path | str) -> dict[str, Any]:
    """Return what the bytes of a manifest.json say, as ``read_manifest`` does; ``file`` is what to call it."""
    stored = _parse(content, file)
    hint = "restore it from a copy, or remove the folder and dump again"
    if not isinstance(stored, dict) or not {"format_version", "promise", "complete"} <= set(stored):
        raise CacheDamagedError(f"{file} is not a cache's manifest", hint=_NOT_OURS)
    # Before the digest: a newer format may compute it otherwise.
    version = require_version(stored["format_version"])
    if not is_sealed(stored):
        raise CacheDamagedError(f"{file} was changed after it was written", hint=hint)
    promise = stored["promise"]
    if isinstance(promise, dict) and promise.get("format_version", version) != version:
        version = require_version(promise["format_version"])
        raise CacheDamagedError(
            f"{file} has format {stored['format_version']}, its promise {version}", hint=hint
        )
    if not isinstance(stored["complete"], bool) or not isinstance(stored.get("summary", {}), dict):
        raise CacheDamagedError(f"{file} makes no sense", hint=hint)
    return stored


_NOT_OURS = "name a folder made by `bancache dump`"


def _content(file: Path) -> bytes:
    try:
        if file.is_symlink() or not file.is_file():
            what = "is not a plain file" if file.is_symlink() or file.exists() else "is missing"
            raise CacheDamagedError(f"{file} {what}", hint=_NOT_OURS)
        size = file.stat().st_size
        if size > MANIFEST_LIMIT:
            raise CacheDamagedError(
                f"{file} is {size:,} bytes; at most {MANIFEST_LIMIT:,} make sense", hint=_NOT_OURS
            )
        return file.read_bytes()
    except OSError as error:
        raise CacheDamagedError(f"{file} cannot be read: {error.strerror}", hint=_NOT_OURS) from error


def _parse(content: bytes, file: Path | str) -> Any:
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    # One character beyond ASCII would quadruple the text in memory; ours are escaped.
    if values > _VALUES_BASE + len(content) // _BYTES_PER_VALUE or not content.isascii():
        raise CacheDamagedError(f"{file} is not a cache's manifest", hint=_NOT_OURS)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as broken:
        raise CacheDamagedError(f"{file} is not valid JSON: {broken}", hint=_NOT_OURS) from broken
