"""Reading and writing manifest.json: JSON that carries its own digest, read with suspicion.

The digest finds what a disk changed. Against a file made to harm, which can have a digest that fits, size and shape are
limited before anything is parsed, and every value is checked when it is read (``schema``).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from bancache.cache.manifest import Manifest, require_version
from bancache.cache.schema import Stored
from bancache.errors import CacheDamagedError, UsageError
from bancache.system.address import Address, as_place
from bancache.system.bucket import Bucket
from bancache.system.checked import checked, parse_json
from bancache.system.fingerprint import fingerprint_json
from bancache.system.wording import command

MANIFEST = "manifest.json"
RECORDS = ".regions"

# A file of a cache takes at most 151 bytes of its manifest, so a manifest of this many is below its limit.
FILES_LIMIT = 400_000
MANIFEST_LIMIT = 64 << 20
# A list of empty lists would parse into thirty times its size; a manifest has three values in a hundred bytes.
_VALUES_BASE, _BYTES_PER_VALUE = 100_000, 32
_NOT_A_CACHE = "name a folder made by `bancache dump`"
_RESTORE = "restore it from a copy, or remove the folder and dump again"


def require_local(path: str | os.PathLike[str], *, to_write: bool = False) -> None:
    """Refuse an address such as ``s3://bucket/gen0.zarr`` where only a folder will do."""
    place = as_place(path)
    if isinstance(place, Address):
        push = f"write {place.name}, and let {command('push', place.name, place)} copy it there"
        pull = f"{command('pull', place, place.name)} brings it here"
        raise UsageError(f"{place} is an address, not a folder", hint=push if to_write else pull)


def sign(body: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values with their digest added."""
    return {**body, "digest": fingerprint_json(body)}


def is_signed(stored: dict[str, Any]) -> bool:
    """Return whether JSON values contain the digest of the rest."""
    body = {key: value for key, value in stored.items() if key != "digest"}
    try:
        return bool(stored.get("digest") == fingerprint_json(body))
    except RecursionError:  # nested deeper than any manifest
        return False


def with_manifest(manifest: Manifest, *, complete: bool, **more: Any) -> dict[str, Any]:
    """Return the signed content of a manifest.json."""
    values = manifest.to_dict()
    version = values["format_version"]
    return sign({"format_version": version, "promise": values, "complete": complete, **more})


def unfinished(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest.json of a cache that is being written."""
    return with_manifest(manifest, complete=False)


def manifest_of(stored: dict[str, Any]) -> Manifest:
    """Return the manifest in what ``read_manifest`` returned."""
    return Manifest.from_dict(stored["promise"])


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a cache's manifest.json and check its digest and its values; its files see ``reader.digests_of``."""
    place = as_place(path)
    if isinstance(place, Address):
        return parse_manifest(manifest_object(Bucket(str(place))), place / MANIFEST)
    file = path / MANIFEST
    if path.is_file():
        dump, evaluate = command("dump", "--teacher", path), command("evaluate", path)
        teach = f"{dump} makes a cache, {evaluate} scores the model"
        raise CacheDamagedError(
            f"{file} is missing: {path.name} is a file", hint=teach if path.suffix == ".pt" else _NOT_A_CACHE
        )
    try:
        found = file.lstat()  # one look: a dump that begins may write it between two
        if not stat.S_ISREG(found.st_mode):
            raise CacheDamagedError(f"{file} is not a plain file", hint=_NOT_A_CACHE)
        if found.st_size > MANIFEST_LIMIT:
            raise CacheDamagedError(
                f"{file} is {found.st_size:,} bytes; at most {MANIFEST_LIMIT:,} make sense", hint=_NOT_A_CACHE
            )
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise CacheDamagedError(f"{file} is missing", hint=_NOT_A_CACHE) from None
    except OSError as error:
        raise CacheDamagedError(f"{file} cannot be read: {error.strerror}", hint=_NOT_A_CACHE) from error
    return parse_manifest(content, file)


def find_manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a cache as ``read_manifest`` does, or None where no cache has begun."""
    place = as_place(path)
    if isinstance(place, Address):
        content = Bucket(str(place)).get(MANIFEST, MANIFEST_LIMIT)
        return None if content is None else parse_manifest(content, place / MANIFEST)
    return read_manifest(path) if (path / MANIFEST).is_file() else None


def manifest_object(bucket: Bucket) -> bytes:
    """Return the manifest.json at an address; CacheDamagedError if there is none."""
    content = bucket.get(MANIFEST, MANIFEST_LIMIT)
    if content is None:
        raise CacheDamagedError(
            f"{bucket.name(MANIFEST)} is missing",
            hint="name the address that `bancache dump` or `bancache push` was given",
        )
    return content


def parse_manifest(content: bytes, file: Path | str) -> dict[str, Any]:
    """Return the values in the bytes of a manifest.json, as ``read_manifest`` does; errors name it ``file``."""
    stored = _parse(content, file)
    if not isinstance(stored, dict) or not {"format_version", "promise", "complete"} <= set(stored):
        raise CacheDamagedError(f"{file} is not a cache's manifest", hint=_NOT_A_CACHE)
    # Before the digest: a newer format may compute it in another way.
    version = require_version(stored["format_version"])
    if not is_signed(stored):
        raise CacheDamagedError(f"{file} was changed after it was written", hint=_RESTORE)
    checked(stored, Stored, name=file, error=CacheDamagedError, hint=_RESTORE)
    inner = stored["promise"]
    if isinstance(inner, dict) and inner.get("format_version", version) != version:
        other = require_version(inner["format_version"])
        raise CacheDamagedError(f"{file} has format {version}, its 'promise' {other}", hint=_RESTORE)
    Manifest.from_dict(inner, file)
    return stored


def _parse(content: bytes, file: Path | str) -> Any:
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    # One character beyond ASCII would quadruple the text in memory; a manifest escapes them.
    if values > _VALUES_BASE + len(content) // _BYTES_PER_VALUE or not content.isascii():
        raise CacheDamagedError(f"{file} is not a cache's manifest", hint=_NOT_A_CACHE)
    try:
        return parse_json(content)
    except ValueError as broken:
        raise CacheDamagedError(f"{file} is not valid JSON: {broken}", hint=_NOT_A_CACHE) from broken
